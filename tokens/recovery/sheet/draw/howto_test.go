package draw

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

func TestCommandsNameTheVolume(t *testing.T) {
	const uuid = "8a0cc7f4-6f0c-4b5e-9d0e-0c4e0a2f9d11"
	for _, c := range []struct{ uuid, device, header, want string }{
		{uuid, "/dev/sda2", "", "cryptsetup open /dev/disk/by-uuid/" + uuid + " recovered"},
		{strings.ToUpper(uuid), "/dev/sda2", "", "cryptsetup open /dev/disk/by-uuid/" + uuid + " recovered"},
		{uuid, "disk.img", "", "cryptsetup open disk.img recovered"},
		{uuid, "/dev/sda2", "/boot/h.img", "cryptsetup open --header=/boot/h.img /dev/sda2 recovered"},
		{"$(reboot)", "/dev/sda2", "", "cryptsetup open /dev/sda2 recovered"},
		{uuid + "\n", "/dev/sda2", "", "cryptsetup open /dev/sda2 recovered"},
		{"", "/dev/a;reboot", "", "cryptsetup open DEVICE recovered"},
		{"", "--key-file=x", "", "cryptsetup open DEVICE recovered"},
		{"", "", "a b", "cryptsetup open --header=HEADER DEVICE recovered"},
		{"", strings.Repeat("d", 65), "", "cryptsetup open DEVICE recovered"},
	} {
		p := &page{UUID: c.uuid, Device: c.device, Header: c.header}
		if got := strings.Join(p.openCommand(), " "); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestCommandsWorkInAShell enrols the sheet's key in real volumes, with the header
// inside and detached, and runs the page's own command for checking it.
func TestCommandsWorkInAShell(t *testing.T) {
	testenv.Need(t, "cryptsetup")
	for _, detached := range []bool{false, true} {
		p := (*page)(sample(t))
		dir := t.TempDir()
		t.Chdir(dir)
		p.Device, p.Keyslot = "v.img", 0
		if err := os.WriteFile("v.img", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate("v.img", 20<<20); err != nil {
			t.Fatal(err)
		}
		format := []string{"luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "key"}
		if detached {
			p.Header = filepath.Join(".", "h.img")
			format = append(format, "--header", p.Header)
		}
		if err := os.WriteFile("key", p.Key.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, "cryptsetup", append(format, p.Device)...)
		list, err := loadFonts()
		if err != nil {
			t.Fatal(err)
		}
		l := layout{fonts: list, width: 170}
		cmd := exec.Command("sh", "-c", strings.Join(l.breakCommand(p.checkCommand()), "\n"))
		cmd.Stdin = strings.NewReader(string(p.Key.Bytes()) + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("detached %v: %v\n%s", detached, err, out)
		}
	}
}
