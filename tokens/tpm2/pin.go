package tpm2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/chip"
)

const (
	saltSize         = 32
	maxSalt          = 64
	pinIterations    = 10000 // of PBKDF2: a constant of systemd 253 to 262
	argonInfo        = "systemd-tpm2-argon2id-lock"
	argonOutput      = 64
	sealedSecretSize = 32
)

// pinKeys are what a PIN gives. Its maker wipes it.
type pinKeys struct {
	// auth is the authValue of the sealed object, without trailing zero bytes: a
	// TPM trims them (TPM 2.0 Part 1 §19.6.5), so they must not enter an HMAC.
	auth secret.Secret
	// lock turns the unsealed secret into the key of the keyslot. Empty without
	// Argon2id, when the unsealed secret is the key.
	lock secret.Secret
}

func (k pinKeys) wipe() {
	k.auth.Wipe()
	k.lock.Wipe()
}

// derivePIN computes the keys of a PIN. salt is nil for systemd 251 and 252, cost
// is nil before 262. It runs for seconds when cost is high, and ends with ctx. An
// error can be luks2.ErrNoMemory.
func derivePIN(ctx context.Context, pin secret.Secret, salt []byte, cost *Argon2idCost) (keys pinKeys, err error) {
	stretched := secret.New(argonOutput)
	defer stretched.Wipe()
	if cost != nil {
		if err := cost.params(salt).Key(ctx, pin, stretched); err != nil {
			return pinKeys{}, fmt.Errorf("stretching the PIN: %w", err)
		}
	}
	secret.Do(func() {
		switch {
		case cost != nil:
			d := stretched.Bytes()
			keys.lock = secret.Copy(d[:argonOutput/2])
			keys.auth = authOfText(d[argonOutput/2:])
		case salt != nil:
			d := secret.New(sha256.Size)
			defer d.Wipe()
			if err = luks2.PBKDF2(ctx, pin, salt, pinIterations, d); err == nil {
				keys.auth = authOfText(d.Bytes())
			}
		default:
			keys.auth = chip.AuthValue(pin.Bytes())
		}
	})
	return keys, err
}

// authOfText is the auth value of a stretched PIN, which systemd uses in base64.
func authOfText(d []byte) secret.Secret {
	text := secret.New(base64.StdEncoding.EncodedLen(len(d)))
	defer text.Wipe()
	base64.StdEncoding.Encode(text.Bytes(), d)
	return chip.AuthValue(text.Bytes())
}

// passphrase turns what was unsealed into the text that opens the keyslot:
// base64, of the secret itself or of what the PIN makes of it. The caller wipes
// it.
func (k pinKeys) passphrase(unsealed secret.Secret) (secret.Secret, error) {
	if k.lock.Len() == 0 {
		return secret.Base64(unsealed), nil
	}
	key := secret.New(sealedSecretSize)
	defer key.Wipe()
	if err := luks2.HKDF(k.lock, unsealed, argonInfo, key); err != nil {
		return secret.Secret{}, fmt.Errorf("deriving the key from PIN and sealed secret: %w", err)
	}
	return secret.Base64(key), nil
}

// checkPIN refuses a new PIN that could not be used everywhere.
func checkPIN(pin secret.Secret) error {
	switch {
	case pin.Len() == 0:
		return errors.New("the PIN is empty")
	case bytes.IndexByte(pin.Bytes(), 0) >= 0:
		return errors.New("the PIN has a zero byte in it")
	}
	return nil
}
