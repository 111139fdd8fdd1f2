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

// once puts the HMAC of one message into dst.
func once(f hashes.Func, dst []byte, key, message []byte) {
	m := newHMAC(f, key)
	defer m.wipe()
	m.sum(dst, message, nil)
}
