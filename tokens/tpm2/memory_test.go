package tpm2

import (
	"context"
	"encoding/base64"
	"runtime"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// remains enrols and unlocks, wipes what it was given and returns what must not
// be found in memory any more, each text inverted.
func remains(t *testing.T, device string, mode PINMode) map[string][]byte {
	t.Helper()
	h := handlerFor(t, device)
	h.PCRs, h.WithPIN = mustPCRs(t, "7"), mode
	if mode == PINArgon2id {
		h.Argon2id = Argon2idCost{Memory: 8 << 20, Iterations: 1}
	}
	pin := secret.Random(40)
	defer pin.Wipe()
	for i, c := range pin.Bytes() { // a text that can be typed
		pin.Bytes()[i] = 'a' + c%26
	}
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: newestSystemd}, &secretUI{pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{asToken(0, e.Token)}}, &secretUI{pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Passphrase.Wipe()
	key := secret.New(sealedSecretSize)
	defer key.Wipe()
	// The text has one character of padding: 33 bytes are decoded, 32 are there.
	buffer := secret.New(base64.StdEncoding.DecodedLen(got.Passphrase.Len()))
	defer buffer.Wipe()
	if _, err := base64.StdEncoding.Decode(buffer.Bytes(), got.Passphrase.Bytes()); err != nil {
		t.Fatal(err)
	}
	copy(key.Bytes(), buffer.Bytes())
	texts := map[string][]byte{"passphrase": testenv.Inverted(got.Passphrase.Bytes()), "key": testenv.Inverted(key.Bytes())}
	if mode != PINNone {
		tok := tokenOf(t, e.Token)
		texts["PIN"] = testenv.Inverted(pin.Bytes())
		for name, pad := range map[string]byte{"inner": 0x36, "outer": 0x5c} { // of an HMAC
			padded := secret.Copy(pin.Bytes())
			for i := range padded.Bytes() {
				padded.Bytes()[i] ^= pad
			}
			texts["PIN with the "+name+" pad"] = testenv.Inverted(padded.Bytes())
			padded.Wipe()
		}
		keys, err := derivePIN(t.Context(), pin, tok.salt, tok.argon)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.wipe()
		texts["auth value"] = testenv.Inverted(keys.auth.Bytes())
		if keys.lock.Len() > 0 {
			texts["lock key"] = testenv.Inverted(keys.lock.Bytes())
		}
	}
	return texts
}

// secretUI answers with a PIN that has no other copy.
type secretUI struct {
	tokens.UI
	pin secret.Secret
}

func (u *secretUI) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	return u.pin.Clone(), nil
}

// TestNoSecretStaysInMemory searches the whole address space, garbage included.
func TestNoSecretStaysInMemory(t *testing.T) {
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for name, mode := range map[string]PINMode{"no PIN": PINNone, "direct": PINDirect, "argon2id": PINArgon2id} {
		t.Run(name, func(t *testing.T) {
			texts := remains(t, swtpm.Device(), mode)
			runtime.GC()
			runtime.GC()
			for what, text := range texts {
				if n := testenv.Copies(t, text); n != 0 {
					t.Errorf("%d copies of the %s", n, what)
				}
			}
		})
	}
}
