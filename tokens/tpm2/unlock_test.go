package tpm2

import (
	"testing"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tokentest"
)

// unlockToken unlocks with one token; answers are typed.
func unlockToken(t testing.TB, h *Handler, tok luks2.Token, answers ...string) (*tokens.Unlocked, error) {
	t.Helper()
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if got != nil {
		t.Cleanup(got.Passphrase.Wipe)
	}
	return got, err
}

func pinAnswers(f fixture) []string {
	if f.PIN == "" {
		return nil
	}
	return []string{f.PIN}
}

func TestFixturesOpen(t *testing.T) {
	chip := fixtureTPM(t)
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			h := handlerFor(t, chip.Device())
			h.signature = pathOption{true, "testdata/tpm2-pcr-signature.json"}
			h.pcrlock = pathOption{true, "testdata/pcrlock.json"}
			got, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...)
			if err != nil {
				t.Fatal(err)
			}
			if secret.UnsafeString(got.Passphrase) != f.Passphrase {
				t.Errorf("another passphrase than systemd's came out")
			}
		})
	}
}
