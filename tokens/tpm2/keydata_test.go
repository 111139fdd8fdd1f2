package tpm2

import (
	"encoding/json"
	"errors"
	"testing"

	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// setOption sets an option of one place, as the command does.
func setOption(t testing.TB, h *Handler, place tokens.Place, name, value string) {
	t.Helper()
	for _, o := range h.Options() {
		if o.Name == name && o.Place&place != 0 {
			if err := o.Set(value); err != nil {
				t.Fatalf("%s=%s: %v", name, value, err)
			}
			return
		}
	}
	t.Fatalf("no option %s", name)
}

// TestSealedObjectInAKeyFile is a volume without a token: crypttab names the PCRs.
func TestSealedObjectInAKeyFile(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	for _, c := range []struct{ fixture, pcrs, pin string }{{"systemd252-tpm2-pcr", "7+11", ""}, {"systemd252-tpm2-pin", "", "yes"}} {
		f := fixtureNamed(t, c.fixture)
		h := handlerFor(t, "")
		setOption(t, h, tokens.Crypttab, "tpm2-device", swtpm.Device())
		if c.pcrs != "" {
			setOption(t, h, tokens.Crypttab, "tpm2-pcrs", c.pcrs)
		}
		if c.pin != "" {
			setOption(t, h, tokens.Crypttab, "tpm2-pin", c.pin)
		}
		data := secret.Copy(tokenOf(t, f.Token).blobs[0].Bytes())
		defer data.Wipe()
		got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{KeyData: data}, tokentest.NewUI(t, tokentest.Typed(pinAnswers(f)...)...))
		if err != nil {
			t.Errorf("%s: %v", c.fixture, err)
			continue
		}
		if secret.UnsafeString(got.Passphrase) != f.Passphrase || got.Token.ID != -1 {
			t.Errorf("%s: another passphrase, token %d", c.fixture, got.Token.ID)
		}
		got.Passphrase.Wipe()
	}
}

func TestKeyFileWithoutASealedObject(t *testing.T) {
	t.Parallel()
	data := secret.Copy([]byte("hunter2"))
	defer data.Wipe()
	_, err := handlerFor(t, "/nonexistent").Unlock(t.Context(), &tokens.UnlockRequest{KeyData: data}, tokentest.NewUI(t))
	if !errors.Is(err, tokens.ErrMalformed) {
		t.Errorf("%v, want ErrMalformed before any device is looked for", err)
	}
}

// TestTokenWithoutBank is systemd 248's form. The bank follows from the policy.
func TestTokenWithoutBank(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	update(swtpm)
	for _, name := range []string{"sha1", "sha256"} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, "11:"+name)
		raw := changed(t, enrolled(t, h).Token, tokens.ExtraMember, "")
		if _, err := unlockToken(t, h, asToken(0, json.RawMessage(changed(t, json.RawMessage(raw), memberBank, "")))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPCRsOfCrypttabChooseTheToken: tpm2-pcrs= is a filter.
func TestPCRsOfCrypttabChooseTheToken(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	list := []luks2.Token{asToken(0, fixtureNamed(t, "systemd257-tpm2-nopcr").Token), asToken(1, fixtureNamed(t, "systemd257-tpm2-pcr").Token)}
	for value, want := range map[string]int{"7+11": 1, "": 0, "7": -1} {
		h := handlerFor(t, swtpm.Device())
		setOption(t, h, tokens.Crypttab, "tpm2-pcrs", value)
		got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: list}, tokentest.NewUI(t))
		if want < 0 {
			if err == nil {
				t.Errorf("%q: token %d opened", value, got.Token.ID)
			}
			continue
		}
		if err != nil || got.Token.ID != want {
			t.Errorf("%q: %+v, %v", value, got, err)
			continue
		}
		got.Passphrase.Wipe()
	}
}

// TestOptionsReachTheHandler sets every option once through the table.
func TestOptionsReachTheHandler(t *testing.T) {
	t.Parallel()
	h := &Handler{}
	for name, value := range map[string]string{
		"tpm2-device": "/dev/tpmrm1", "tpm2-device-key": "/srk", "tpm2-seal-key-handle": "81000002", "tpm2-pcrs": "7", "tpm2-latch": "",
		"tpm2-with-pin": "argon2id", "tpm2-argon2id-memory": "1G", "tpm2-argon2id-iterations": "3", "tpm2-argon2id-parallelism": "2",
		"tpm2-argon2id-iter-time": "500ms", "tpm2-public-key": "/key", "tpm2-public-key-pcrs": "11+12", "tpm2-public-key-policyref": "initrd",
		"tpm2-signature": "/sig", "tpm2-pcrlock": "",
	} {
		setOption(t, h, tokens.Enrolling, name, value)
	}
	setOption(t, h, tokens.Unlocking, "unlock-tpm2-device", "swtpm:port=5")
	if h.Device != "/dev/tpmrm1" || h.DeviceKey != "/srk" || h.ParentHandle != 0x81000002 || h.PCRs.Set != chip.PCRSetOf(7) || !h.Latch || h.WithPIN != PINArgon2id ||
		h.Argon2id != (Argon2idCost{1 << 30, 3, 2}) || h.Argon2idTime != 500e6 || *h.PublicKey != "/key" || *h.PublicKeyPCRs != chip.PCRSetOf(11, 12) || *h.PublicKeyRef != "initrd" ||
		*h.Signature != "/sig" || *h.PCRLock != "" || h.unlockDeviceOr() != "swtpm:port=5" {
		t.Errorf("%+v", h)
	}
}
