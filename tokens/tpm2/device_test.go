package tpm2

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

func TestDeviceTable(t *testing.T) {
	t.Parallel()
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, chip.Device())
	h.pinMode = pinDirect
	tok := asToken(0, enrolled(t, h, "4711").Token)
	row := func() []string {
		t.Helper()
		table, err := h.Devices(t.Context())
		if err != nil || len(table.Rows) != 1 {
			t.Fatalf("%+v, %v", table, err)
		}
		return table.Rows[0]
	}
	if got := row(); got[0] != chip.Device() || got[1] != "IBM SW TPM" || got[3] != "sha256 sha384 sha512 sha1" || got[4] != "0 of 3" || got[5] != "-" {
		t.Errorf("%q", got)
	}
	ui := tokentest.NewUI(t, tokentest.Answer{Text: "wrong"}, tokentest.Answer{Err: tokens.ErrNoPrompt})
	if _, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, ui); !errors.Is(err, tokens.ErrWrongPIN) {
		t.Fatal(err)
	}
	if got := row(); got[4] != "1 of 3" || got[5] != "in at most 16 min 40 s" {
		t.Errorf("%q", got)
	}
}

func TestAutoDevice(t *testing.T) {
	t.Parallel()
	h := handlerFor(t, "auto")
	if _, err := h.connect(t.Context(), "auto"); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("none: %v", err)
	}
	for _, name := range []string{"tpmrm0", "tpmrm1"} {
		if err := os.MkdirAll(filepath.Join(h.Paths.sysTPM(), name), 0o755); err != nil {
			t.Fatal(err)
		}
		path, err := h.onlyDevice()
		if name == "tpmrm0" && (err != nil || path != h.Paths.join("/dev/tpmrm0")) {
			t.Errorf("one: %s, %v", path, err)
		}
		if name == "tpmrm1" && (!errors.Is(err, tokens.ErrSeveralDevices) || !strings.Contains(err.Error(), "tpmrm0, ")) {
			t.Errorf("two: %s, %v", path, err)
		}
	}
	for device, ok := range map[string]bool{"auto": true, "/dev/tpm0": true, "device:/dev/tpm0": true, "swtpm": true, "swtpm:port=5": true, "swtpm:host=::1,port=5": true,
		"swtpm:path=/run/s": true, "tpm0": false, "swtpm:port=0": false, "swtpm:port=x": false, "swtpm:path=s": false, "swtpm:host=example.org": false, "swtpm:foo=1": false, "list": false, "mssim": false} {
		if err := checkDevice(device); (err == nil) != ok {
			t.Errorf("%s: %v", device, err)
		}
	}
	if _, err := h.connect(t.Context(), "/etc/passwd"); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("a regular file: %v", err)
	}
}
