package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/seen"
	"luksmith/internal/test/testenv"
)

// sights are calls, with the status and last message of each.
var sights = []struct {
	call   string
	status int
	last   string
}{
	{"crypttab lint wrong", 1, "wrong: 5 volumes, 3 errors, 4 warnings"},
	{"crypttab lint right", 0, "right: 1 volume, no mistakes"},
	{"crypttab lint missing", 1, "cryptsetup-unit: hint: a system that attaches no volume at boot needs no crypttab"},
	{"crypttab set --file=right v.img discard", 0, "right:1: nothing to change: v .* none luks,discard"},
	{"status nosuch", 4, "cryptsetup-unit: error: nosuch is not attached"},
	{"attach v nosuch.img", 1, `cryptsetup-unit: error: attaching v: device: "nosuch.img" is neither absolute nor a tag such as UUID=`},
	{"attach", 1, `cryptsetup-unit: hint: usage: cryptsetup-unit attach VOLUME \[DEVICE \[KEY-FILE\] \[OPTIONS\]\]`},
	{"attach-all --help", 0, `See cryptsetup-unit\(8\) and luksmith-crypttab\(5\).`},
	{"detach nosuch", 0, "nosuch is not attached."},
	{"atach v", 1, "cryptsetup-unit: hint: the commands are attach, .* see cryptsetup-unit --help"},
	{"initrd needs --crypttab=right", 0, "module dm_crypt module crypto-aes module crypto-xts"},
}

// deviceMapper are the calls that it answers to root alone.
var deviceMapper = map[string]bool{"status nosuch": true, "detach nosuch": true}

// seenCrypttab is one with a fault of nearly each kind.
const seenCrypttab = `# name device key options
swap   /dev/sda2   /dev/urandom   swap,cipher=aes-xts-plain64
data   v.img  none  luks,discards,tpm2=auto,x-initrd.attach
data   v.img  /etc/keys/a-long-name-of-a-key-file-that-is-not-there.key  luks,,noauto
Gerät  UUID=00000000-0000-0000-0000-000000000000  none  luks,timeout=soon
old    /dev/sda9  none  luks,keyscript=/lib/cryptsetup/scripts/decrypt_derived
`

// TestWhatAPersonSees runs the command at terminals and a pipe, and looks at each screen:
// see the test of that name in cryptenroll.
func TestWhatAPersonSees(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := luks2test.New(t)
	if err := os.Rename(v.Path, filepath.Join(dir, "v.img")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "wrong"), []byte(seenCrypttab), 0o600)
	write(t, filepath.Join(dir, "right"), []byte("v "+filepath.Join(dir, "v.img")+" none luks,discard\n"), 0o600)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	answers := []testenv.Answer{{Question: `for disk [^:]*:`, Keys: []string{"hunter3\r"}}}
	for _, s := range sights {
		if os.Geteuid() != 0 && deviceMapper[s.call] {
			s.status, s.last = 1, "cryptsetup-unit: hint: try again as root: sudo cryptsetup-unit "+s.call
		}
		for _, view := range seen.Views() {
			cmd := exec.Command("bash", "-c", `exec -a cryptsetup-unit "$UNIT" `+s.call)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), asCommand+"=1", "UNIT="+exe)
			status, text, faults, err := view.Look(cmd, answers)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("--- %s: %s\n%s", view.Name, s.call, text)
			if len(faults) > 0 || status != s.status || !seen.EndsWith(text, s.last) {
				t.Errorf("%s: %s: status %d, %q; wanted at the end: %s", view.Name, s.call, status, faults, s.last)
			}
		}
	}
}
