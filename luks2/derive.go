package luks2

import (
	"context"
	"fmt"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/kdf"
	"luksmith/luks2/secret"
)

// The functions below are for token types, whose PINs and keys must not stay behind
// either: the libraries of Go copy keys into memory that nobody can overwrite.

// HMAC is the MAC of the parts, one after the other. hash is sha1, sha256, sha384 or
// sha512; key is borrowed.
func HMAC(hash string, key secret.Secret, parts ...[]byte) []byte {
	return kdf.HMAC(hash, key, parts...)
}

// PBKDF2 fills out with PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2) of a passphrase. Both are
// borrowed.
func PBKDF2(ctx context.Context, passphrase secret.Secret, salt []byte, iterations int, out secret.Secret) error {
	f, _ := hashes.ByName("sha256")
	return kdf.PBKDF2(ctx, f, passphrase.Bytes(), salt, iterations, out.Bytes())
}

// HKDF fills out, of at most 32 bytes, with HKDF-SHA-256 (RFC 5869) of key and salt,
// which are borrowed.
func HKDF(key, salt secret.Secret, info string, out secret.Secret) error {
	if out.Len() > 32 {
		return fmt.Errorf("a key of %d bytes is more than one block", out.Len())
	}
	kdf.HKDF{Info: info}.Key(key, salt, out)
	return nil
}
