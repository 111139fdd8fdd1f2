// Package pkcs11 enrols and unlocks with smartcards and other PKCS#11 tokens, in
// systemd's format "systemd-pkcs11" (systemd 248 to 262).
//
// For an RSA key the token in the header holds a random secret, encrypted with
// the public key. For an elliptic-curve key it holds the public half of a key
// pair made for the occasion, and the secret is what ECDH with the card's key
// gives. Either way the passphrase of the keyslot is the base64 text of the
// secret, and docs/formats.md has every member.
//
// The modules of PKCS#11 are C libraries that crash and hang; they are loaded by
// luksmith-pkcs11 alone, a process for each session. See [luksmith/internal/helper]
// and the package wire.
package pkcs11
