package chip

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/tokens"
)

func TestAutoDevice(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, err := Open(t.Context(), "auto", root); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("none: %v", err)
	}
	for _, name := range []string{"tpmrm0", "tpmrm1"} {
		if err := os.MkdirAll(filepath.Join(sysTPM(root), name), 0o755); err != nil {
			t.Fatal(err)
		}
		path, err := onlyDevice(root)
		if name == "tpmrm0" && (err != nil || path != filepath.Join(root, "dev/tpmrm0")) {
			t.Errorf("one: %s, %v", path, err)
		}
		if name == "tpmrm1" && (!errors.Is(err, tokens.ErrSeveralDevices) || !strings.Contains(err.Error(), "tpmrm0, ")) {
			t.Errorf("two: %s, %v", path, err)
		}
	}
	for device, ok := range map[string]bool{"auto": true, "/dev/tpm0": true, "device:/dev/tpm0": true, "swtpm": true, "swtpm:port=5": true, "swtpm:host=::1,port=5": true,
		"swtpm:path=/run/s": true, "tpm0": false, "swtpm:port=0": false, "swtpm:port=x": false, "swtpm:path=s": false, "swtpm:host=example.org": false, "swtpm:foo=1": false, "list": false, "mssim": false} {
		if err := CheckName(device); (err == nil) != ok {
			t.Errorf("%s: %v", device, err)
		}
	}
	if _, err := Open(t.Context(), "/etc/passwd", root); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("a regular file: %v", err)
	}
}
