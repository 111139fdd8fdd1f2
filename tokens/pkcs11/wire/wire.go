// Package wire is what the PKCS#11 handler and the program luksmith-pkcs11 say to
// each other over internal/helper. It imports no PKCS#11 library, so that the
// commands stay static.
//
// Texts and identifiers of a token are byte strings here, because a module may
// put anything into them and a URI has to match them byte by byte.
package wire

// Program is the file name of the helper.
const Program = "luksmith-pkcs11"

// Proxy is p11-kit's proxy module. Distributions put p11-kit-proxy.so into various
// folders, but it is always a link to this library (p11-kit, p11-kit/Makefile.am,
// install-exec-hook), which the dynamic linker finds by its name in the folders of
// the system, and nowhere else.
const Proxy = "libp11-kit.so.0"

// Methods of the helper. MethodOpen comes first, once.
const (
	MethodOpen        = "open"         // OpenParams; no result
	MethodTokens      = "tokens"       // no parameters; Tokens
	MethodPublicKeys  = "public-keys"  // KeyParams; []PublicKey
	MethodLogin       = "login"        // LoginParams and the PIN as secret, none for a keypad; no result
	MethodPrivateKeys = "private-keys" // KeyParams; []PrivateKey
	MethodDecrypt     = "decrypt"      // DecryptParams and perhaps the PIN; one secret
	MethodDerive      = "derive"       // DeriveParams; one secret
	MethodWait        = "wait"         // WaitParams; WaitResult
	MethodClose       = "close"        // no parameters, no result; the last request
)

// Codes of the errors that the handler tells apart. Every other failure of a
// module comes as CodeFailed with the name of its CKR_ code in the text.
const (
	CodeModule     = "module"      // the module is missing or must not be loaded
	CodeNotPresent = "not-present" // the token or its reader is gone
	CodeWrongPIN   = "wrong-pin"   // one try is gone
	CodePINLocked  = "pin-locked"  // no PIN is accepted any more
	CodeFailed     = "failed"
)

// OpenParams names what to load.
type OpenParams struct {
	// Module is the absolute path of a PKCS#11 module that the administrator
	// configured; empty for p11-kit and the modules of its configuration.
	Module string `json:"module,omitempty"`
}

// Tokens is what is plugged in now.
type Tokens struct {
	Tokens []Token `json:"tokens"`
	// State is a digest of the list, for WaitParams.
	State string `json:"state"`
}

// Token is a slot with a token in it. Texts have lost their padding.
type Token struct {
	Slot             uint   `json:"slot"`
	SlotDescription  []byte `json:"slot-description"`
	SlotManufacturer []byte `json:"slot-manufacturer"`
	Label            []byte `json:"label"`
	Manufacturer     []byte `json:"manufacturer"`
	Model            []byte `json:"model"`
	Serial           []byte `json:"serial"`
	Initialized      bool   `json:"initialized"`    // CKF_TOKEN_INITIALIZED
	LoginRequired    bool   `json:"login-required"` // CKF_LOGIN_REQUIRED
	Keypad           bool   `json:"keypad"`         // CKF_PROTECTED_AUTHENTICATION_PATH
	PINSet           bool   `json:"pin-set"`        // CKF_USER_PIN_INITIALIZED
	PINCountLow      bool   `json:"pin-count-low"`  // CKF_USER_PIN_COUNT_LOW
	PINFinalTry      bool   `json:"pin-final-try"`  // CKF_USER_PIN_FINAL_TRY
	PINLocked        bool   `json:"pin-locked"`     // CKF_USER_PIN_LOCKED
	MinPIN           int    `json:"min-pin"`        // shortest PIN in bytes, 0 unknown
	MaxPIN           int    `json:"max-pin"`        // longest PIN in bytes, 0 unknown
	OAEP             bool   `json:"oaep,omitempty"` // CKM_RSA_PKCS_OAEP decrypts, says the token
}

// LoginParams names a slot by its number in Token.
type LoginParams struct {
	Slot uint `json:"slot"`
}

// KeyParams selects keys of a slot. ID and Label are CKA_ID and CKA_LABEL, empty
// for any.
type KeyParams struct {
	Slot  uint   `json:"slot"`
	ID    []byte `json:"id,omitempty"`
	Label []byte `json:"label,omitempty"`
}

// Key types.
const (
	RSA = "rsa"
	EC  = "ec"
)

// PublicKey is a public key object with its attributes as the module gave them, or
// the key of a certificate in the same form.
type PublicKey struct {
	ID          []byte `json:"id,omitempty"`
	Label       []byte `json:"label,omitempty"`
	Certificate bool   `json:"certificate,omitempty"` // it comes from an X.509 certificate
	Type        string `json:"type,omitempty"`        // RSA or EC; empty for others and for what cannot be read
	Modulus     []byte `json:"modulus,omitempty"`     // CKA_MODULUS
	Exponent    []byte `json:"exponent,omitempty"`    // CKA_PUBLIC_EXPONENT
	Params      []byte `json:"params,omitempty"`      // CKA_EC_PARAMS, DER
	Point       []byte `json:"point,omitempty"`       // CKA_EC_POINT
}

// PrivateKey is a private key that may decrypt (RSA) or derive (EC).
type PrivateKey struct {
	Handle uint   `json:"handle"` // valid in this session
	ID     []byte `json:"id,omitempty"`
	Label  []byte `json:"label,omitempty"`
	Type   string `json:"type"`
	// The public parts are empty where a module keeps them to itself.
	Modulus  []byte `json:"modulus,omitempty"`
	Exponent []byte `json:"exponent,omitempty"`
	Params   []byte `json:"params,omitempty"`
	// PINEachTime is CKA_ALWAYS_AUTHENTICATE: MethodDecrypt needs the PIN again.
	PINEachTime bool `json:"pin-each-time,omitempty"`
}

// Padding is how a secret was encrypted with an RSA key: the words of systemd's
// member "pkcs11-padding" (systemd 261).
type Padding string

// The paddings of systemd 248 to 262. OAEP is with MGF1 of the same hash and an
// empty label.
const (
	PKCS1      Padding = "pkcs1"
	OAEPSHA1   Padding = "oaep-sha1"
	OAEPSHA256 Padding = "oaep-sha256"
)

// DecryptParams asks for an RSA decryption. The answer to a ciphertext that does
// not decrypt is a random secret of Size bytes, see MethodDecrypt in the helper.
type DecryptParams struct {
	Slot       uint    `json:"slot"`
	Key        uint    `json:"key"`
	Padding    Padding `json:"padding"`
	Ciphertext []byte  `json:"ciphertext"`
	Size       int     `json:"size"`
}

// DeriveParams asks for an ECDH key agreement. Point is the other side's public
// point in its uncompressed form, 04‖x‖y.
type DeriveParams struct {
	Slot  uint   `json:"slot"`
	Key   uint   `json:"key"`
	Point []byte `json:"point"`
}

// WaitParams holds the State that the caller knows and how long to wait for
// another one.
type WaitParams struct {
	State        string `json:"state"`
	Milliseconds int    `json:"milliseconds"`
}

// WaitResult says whether the state is another one now.
type WaitResult struct {
	Changed bool `json:"changed"`
}
