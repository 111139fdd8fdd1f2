package kdf

import (
	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// HKDF derives keys of 32 bytes with HKDF-SHA-256 (RFC 5869). crypto/hkdf is not
// used for the same reason as crypto/pbkdf2: what it copies stays on the heap.
type HKDF struct {
	Salt, Info string
}

// MAC is HMAC-SHA-256 of message under the key that is derived from another one,
// which is borrowed.
func (d HKDF) MAC(from secret.Secret, message []byte) (mac [32]byte) {
	secret.Do(func() {
		f, _ := hashes.ByName("sha256")
		work := secret.New(2 * f.Size)
		defer work.Wipe()
		extracted, key := work.Bytes()[:f.Size], work.Bytes()[f.Size:]
		once(f, extracted, []byte(d.Salt), from.Bytes())
		once(f, key, extracted, append([]byte(d.Info), 1))
		once(f, mac[:], key, message)
	})
	return mac
}

// Key fills out, which has at most the 32 bytes of one block, with HKDF-SHA-256 of a
// key with a secret salt. All are borrowed.
func (d HKDF) Key(from, salt, out secret.Secret) {
	secret.Do(func() {
		f, _ := hashes.ByName("sha256")
		work := secret.New(2 * f.Size)
		defer work.Wipe()
		extracted, key := work.Bytes()[:f.Size], work.Bytes()[f.Size:]
		once(f, extracted, salt.Bytes(), from.Bytes())
		once(f, key, extracted, append([]byte(d.Info), 1))
		copy(out.Bytes(), key)
	})
}
