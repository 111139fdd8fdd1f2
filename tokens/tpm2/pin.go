package tpm2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"luksmith/luks2"
	"luksmith/luks2/argon2id"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

const (
	saltSize         = 32
	maxSalt          = 64
	pinIterations    = 10000 // of PBKDF2: a constant of systemd 253 to 262
	argonInfo        = "systemd-tpm2-argon2id-lock"
	argonOutput      = 64
	sealedSecretSize = 32
	// maxArgonWork bounds memory times iterations of a token, in KiB: about two
	// minutes of one core. A header must not be able to hang the boot for hours.
	maxArgonWork = 128 << 20
)

// Argon2idCost is how a PIN is stretched since systemd 262.
type Argon2idCost struct {
	Memory     uint64 // bytes; rounded down to KiB when used
	Iterations uint64
	Lanes      uint64
}

func (c *Argon2idCost) kib() uint64 { return c.Memory / 1024 }

// params are for costs that check and affordable have passed.
func (c *Argon2idCost) params(salt []byte) argon2id.Params {
	return argon2id.Params{Salt: salt, Time: int(c.Iterations), MemoryKiB: int(c.kib()), Lanes: int(c.Lanes)}
}

// check refuses what Argon2 does not allow (RFC 9106 §3.1).
func (c *Argon2idCost) check() error {
	if c.kib() < 8*c.Lanes || c.kib() > 1<<32-1 {
		return fmt.Errorf("is %d bytes for %d lanes", c.Memory, c.Lanes)
	}
	return nil
}

// benchmark raises the cost until one PIN takes systemd the wanted time on this
// machine: memory first, then iterations, unless they were given.
func (c *Argon2idCost) benchmark(ctx context.Context, given Argon2idCost, want time.Duration) error {
	const mostMemory = 1 << 30
	took, err := c.params(make([]byte, saltSize)).LibargonTime(ctx)
	if err != nil {
		return fmt.Errorf("measuring Argon2id: %w", err)
	}
	factor := float64(want) / float64(took)
	if given.Memory == 0 {
		memory := min(max(uint64(float64(c.Memory)*factor), 8<<20), mostMemory)
		factor *= float64(c.Memory) / float64(memory)
		c.Memory = memory
	}
	if given.Iterations == 0 {
		c.Iterations = max(uint64(float64(c.Iterations)*factor), 1)
	}
	return nil
}

// affordable refuses what this machine cannot or should not compute. The error is
// ErrUnsupported.
func (c *Argon2idCost) affordable() error {
	switch err := luks2.CheckMemory(c.kib()); {
	case err != nil:
		return fmt.Errorf("%w: stretching the PIN: %w", tokens.ErrUnsupported, err)
	case c.Lanes > 255:
		return fmt.Errorf("%w: the PIN is stretched in %d lanes, at most 255 are computed here", tokens.ErrUnsupported, c.Lanes)
	case c.Iterations > maxArgonWork || c.kib()*c.Iterations > maxArgonWork:
		return fmt.Errorf("%w: stretching the PIN in %d passes over %d MiB would take too long", tokens.ErrUnsupported, c.Iterations, c.Memory>>20)
	}
	return nil
}

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
			keys.auth = authValue(pin.Bytes())
		}
	})
	return keys, err
}

// authOfText is the auth value of a stretched PIN, which systemd uses in base64.
func authOfText(d []byte) secret.Secret {
	text := secret.New(base64.StdEncoding.EncodedLen(len(d)))
	defer text.Wipe()
	base64.StdEncoding.Encode(text.Bytes(), d)
	return authValue(text.Bytes())
}

// authValue is SHA-256 of the effective PIN without trailing zeros.
func authValue(pin []byte) secret.Secret {
	sum := sha256.Sum256(pin)
	defer secret.Wipe(sum[:])
	return secret.Copy(bytes.TrimRight(sum[:], "\x00"))
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
