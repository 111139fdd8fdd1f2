package luks2_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/luks2"
)

// TestWhatStandsThereInsteadIsNamed: the usual cause is the wrong device.
func TestWhatStandsThereInsteadIsNamed(t *testing.T) {
	t.Parallel()
	for want, magic := range map[string]struct {
		at   int
		text string
	}{
		"it holds ext2/3/4": {0x438, "\x53\xef"}, "GPT partition table": {512, "EFI PART"}, "not a LUKS2 volume": {},
	} {
		image := make([]byte, 64<<10)
		copy(image[magic.at:], magic.text)
		path := filepath.Join(t.TempDir(), "device")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := luks2.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Header(t.Context()); !errors.Is(err, luks2.ErrNotLUKS2) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
