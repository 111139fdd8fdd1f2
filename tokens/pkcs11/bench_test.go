package pkcs11

import (
	"context"
	"testing"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// typist types the same PIN at every question.
type typist string

func (p typist) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	return secret.Copy([]byte(p)), nil
}
func (p typist) Show(string) func() { return func() {} }
func (p typist) Note(string)        {}

// BenchmarkUnlock is everything from the start of the helper to the passphrase,
// with SoftHSM through p11-kit.
func BenchmarkUnlock(b *testing.B) {
	for _, name := range fixtures {
		b.Run(name, func(b *testing.B) {
			h := &Handler{Connect: connect(b, fixtureStore(b).Env...)}
			req := &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(readVolume(b, name).Token))}}
			for b.Loop() {
				got, err := h.Unlock(b.Context(), req, typist(fixtureToken.PIN))
				if err != nil {
					b.Fatal(err)
				}
				got.Passphrase.Wipe()
			}
		})
	}
}
