// Package kdf computes PBKDF2, the key derivation function of digests and of some
// keyslots, without leaving passphrases or keys in the Go heap.
package kdf

import (
	"context"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// PBKDF2 fills out with the key of RFC 8018 §5.2. It returns early with the
// error of ctx; out is then undefined.
//
// crypto/pbkdf2 is not used: it copies the passphrase into memory that nobody
// wipes, and cannot be interrupted while an untrusted header decides how long it
// runs.
func PBKDF2(ctx context.Context, f hashes.Func, passphrase, salt []byte, iterations int, out []byte) (err error) {
	secret.Do(func() {
		m := newHMAC(f, passphrase)
		defer m.wipe()
		m.repeat(f)
		for block := uint32(1); len(out) > 0 && err == nil; block++ {
			out, err = m.block(ctx, out, salt, block, iterations)
		}
	})
	return err
}
