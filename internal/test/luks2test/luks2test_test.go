package luks2test

import (
	"os"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// TestCryptsetupOpensTheVolumes is the check that these are volumes at all.
func TestCryptsetupOpensTheVolumes(t *testing.T) {
	testenv.Need(t, "cryptsetup")
	for name, options := range map[string][]Option{
		"default":    nil,
		"detached":   {WithDetachedHeader()},
		"label":      {WithLabel("data"), WithPassphrase("other")},
		"large":      {WithFormat(func(o *luks2.FormatOptions) { o.HeaderSize = 4 << 20 })},
		"4k sectors": {WithFormat(func(o *luks2.FormatOptions) { o.SectorSize = 4096 })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := New(t, options...)
			slot := v.Enroll(t, "second", luks2.Token{Type: "systemd-recovery"})
			header := v.Path
			if v.HeaderPath != "" {
				header = v.HeaderPath
			}
			for _, text := range []string{v.Passphrase, "second"} {
				file := t.TempDir() + "/key"
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				testenv.Run(t, "cryptsetup", "open", "--test-passphrase", "--key-file", file, "--header", header, v.Path)
			}
			if slot != 1 || !v.Opens(t, "second") || v.Opens(t, "third") {
				t.Errorf("slot %d", slot)
			}
		})
	}
}
