package tpm2

import (
	"encoding/hex"
	"path/filepath"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
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

// checkVolumeKey opens the recorded volume.
func checkVolumeKey(t *testing.T, f fixture, passphrase secret.Secret) {
	t.Helper()
	d, err := luks2.Open(testenv.Image(t, filepath.Join("testdata/systemd", f.name+".img.zst")), &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	vk, err := d.OpenKeyslot(t.Context(), 1, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer vk.Wipe()
	if hex.EncodeToString(vk.Key.Bytes()) != f.VolumeKey {
		t.Error("another volume key than the recorded one")
	}
}

func TestFixturesOpen(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			h := handlerFor(t, swtpm.Device())
			h.Signature = new("testdata/tpm2-pcr-signature.json")
			h.PCRLock = new("testdata/pcrlock.json")
			got, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...)
			if err != nil {
				t.Fatal(err)
			}
			if secret.UnsafeString(got.Passphrase) != f.Passphrase {
				t.Errorf("another passphrase than systemd's came out")
			}
			checkVolumeKey(t, f, got.Passphrase)
		})
	}
}
