package luks2

// KDFType is the "type" member of a keyslot's kdf object.
type KDFType string

// The types of LUKS2 specification 1.1.3 §3.2.3.
const (
	KDFPBKDF2   KDFType = "pbkdf2"
	KDFArgon2i  KDFType = "argon2i"
	KDFArgon2id KDFType = "argon2id"
)

// KDF says how a keyslot turns a passphrase into the key of its area. For a new
// keyslot the salt is chosen by Tx.AddKeyslot and Salt is ignored.
type KDF struct {
	Type       KDFType
	Hash       string // pbkdf2: sha1, sha256, sha384, sha512
	Iterations int    // pbkdf2
	Time       int    // argon2: passes
	MemoryKiB  int    // argon2
	Parallel   int    // argon2: lanes, 1..4 by cryptsetup's rule
	Salt       []byte // 32 bytes when written by us
}

// MinimalKDF is what systemd uses for every token slot: the passphrase is a
// high-entropy key already, so stretching it would only cost time at boot
// (systemd src/cryptenroll, cryptsetup_set_minimal_pbkdf).
var MinimalKDF = KDF{Type: KDFPBKDF2, Hash: "sha512", Iterations: 1000}
