// Package combo is the token type "luksmith-combo": a keyslot that opens only with
// several factors together, such as the TPM and a FIDO2 key, or with any k of n.
//
// A factor is a token of another type, or a passphrase that is typed. Each is
// enrolled, proven and asked for by its own handler, so that one factor costs one
// question, and gives a secret. The passphrase of the keyslot is derived from all
// of them:
//
//	PRK = HKDF-Extract(combo-salt, L(s1) s1 L(s2) s2 …)
//	key = HKDF-Expand(PRK, "luksmith-combo v1" L(f1) f1 L(f2) f2 …, 32)
//
// with SHA-256, the secrets s in the order of the token, f the identity of a
// factor, and L a length as four bytes, most significant first. The base64 text of
// key opens the keyslot. A passphrase is stretched with Argon2id first.
//
// # Why that is enough
//
// The secret of a TPM, FIDO2 key or smartcard has 256 bits. Whoever lacks one of
// them lacks a key of 256 bits, whatever else is known; nothing in the token is
// computed from fewer than all secrets, so there is nothing to check a single guess
// with. A passphrase alone can be guessed only with all devices of the subset at
// hand, at the cost of Argon2id for each guess. Changing the token changes the key:
// then nothing opens.
//
// # k of n
//
// Each subset of k factors has a keyslot and a token of its own. What is enrolled
// once stands in several tokens under the same identity, so that nobody is asked
// for it twice.
//
// systemd does not know the type and leaves it alone; cryptsetup keeps it.
package combo
