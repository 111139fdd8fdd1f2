package tpm2

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// TestSignaturesInTheTokenOpenIt: a token with a PIN that takes signed values opens in
// the states that were signed for, without a file, and in no other.
func TestSignaturesInTheTokenOpenIt(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	boots := recordedBoots(t, "uki")
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	bootInto(swtpm, boots["base"])
	h := handlerFor(t, swtpm.Device())
	set := chip.PCRSetOf(4, 7)
	h.WithPIN, h.PublicKey, h.PublicKeyPCRs, h.PublicKeyBank = PINDirect, new(public), &set, chip.BankSHA256
	token := asToken(0, enrolled(t, h, "4711").Token)
	sign := func(names ...string) bool {
		t.Helper()
		b := h.BootTokens([]luks2.Token{token})[0]
		if pcrs, ok := b.SignedBy(&key.PublicKey); !ok || len(pcrs) != 2 || b.Plain {
			t.Fatalf("%v, %v", pcrs, ok)
		}
		var states []BootState
		for _, name := range names {
			states = append(states, stateOf(name, boots[name], 4, 7))
		}
		raw, changed, err := b.Sign(&SignRequest{Key: key, States: states, Keep: map[string]bool{"initrd": true}})
		if err != nil {
			t.Fatal(err)
		}
		token.Raw = raw
		return changed
	}
	opens := func(name string, want bool) {
		t.Helper()
		swtpm.Shutdown()
		bootInto(swtpm, boots[name])
		var answers []string
		if want {
			answers = append(answers, "4711")
		}
		got, err := unlockToken(t, h, token, answers...)
		if want != (err == nil) || err != nil && !errors.Is(err, tokens.ErrPolicy) {
			t.Errorf("in %s: %v", name, err)
		}
		if err == nil {
			got.Passphrase.Wipe()
		}
	}
	opens("base", false)
	if !sign("base", "kernel") || sign("base", "kernel") {
		t.Error("signing twice")
	}
	opens("base", true)
	opens("kernel", true)
	opens("initrd", false)
	if !sign("initrd") {
		t.Error("nothing changed")
	}
	opens("initrd", true)
	opens("kernel", false)
	if !sign("kernel") { // the one for initrd is kept
		t.Error("nothing changed")
	}
	opens("initrd", true)
	opens("kernel", true)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.BootTokens([]luks2.Token{token})[0].SignedBy(&other.PublicKey); ok {
		t.Error("another key is taken for that of the token")
	}
	b := h.BootTokens([]luks2.Token{token})[0]
	if token.Raw, _, err = b.Sign(&SignRequest{Key: other, States: []BootState{stateOf("stub252", boots["stub252"], 4, 7)}}); err != nil {
		t.Fatal(err)
	}
	opens("stub252", false)
}
