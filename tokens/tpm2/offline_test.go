package tpm2

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

func TestOffline(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	zero := strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		pcrs string
		pin  PINMode
	}{"PCR": {"7:sha256=" + zero, PINNone}, "nothing": {"", PINNone}, "PIN": {"", PINDirect}, "Argon2id": {"7:sha256=" + zero, PINArgon2id}} {
		t.Run(name, func(t *testing.T) {
			h := handlerFor(t, "")
			h.DeviceKey, h.PCRs, h.WithPIN = "testdata/srk.tpm2b_public", mustPCRs(t, c.pcrs), c.pin
			if c.pin == PINArgon2id {
				h.Argon2id = Argon2idCost{Memory: 8 << 20, Iterations: 1}
			}
			var answers []string
			if c.pin != PINNone {
				answers = []string{"4711"}
			}
			e, err := tryEnroll(t, h, having(), answers...)
			if err != nil {
				t.Fatal(err)
			}
			tok := tokenOf(t, e.Token)
			if !tok.offline() || !strings.Contains(strings.Join(e.Notes, "\n"), "without the TPM") {
				t.Errorf("offline %v, notes %q", tok.offline(), e.Notes)
			}
			got, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, e.Token), answers...)
			if err != nil || !got.Passphrase.Equal(e.Passphrase) {
				t.Errorf("on the machine: %v", err)
			}
		})
	}
}

// TestOfflineForRSA seals for an RSA storage key.
func TestOfflineForRSA(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	path := filepath.Join(t.TempDir(), "srk")
	withConn(t, swtpm, func(c *chip.Conn) {
		if err := persist(t, c, chip.StorageTemplate("rsa", true), chip.HandleSRK); err != nil {
			t.Fatal(err)
		}
		public, err := c.ReadPublic(chip.HandleSRK)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, sized(public), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	h := handlerFor(t, "")
	h.DeviceKey = path
	e, err := tryEnroll(t, h, having())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, e.Token)); err != nil {
		t.Error(err)
	}
}

// TestSystemd257OpensWhatWasSealedOffline is the other side of the fixture.
func TestSystemd257OpensWhatWasSealedOffline(t *testing.T) {
	t.Parallel()
	p := systemd257(t)
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{State: "testdata", TCP: true})
	h := handlerFor(t, "")
	h.DeviceKey, h.PCRs = "testdata/srk.tpm2b_public", mustPCRs(t, "7:sha256="+strings.Repeat("00", 32))
	e, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: 257})
	if err != nil {
		t.Fatal(err)
	}
	image := p.volume(t)
	put(t, p, image, e)
	if err := p.opens(t, swtpm, image, ""); err != nil {
		t.Error(err)
	}
}
