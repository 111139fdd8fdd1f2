package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	fromAgent   = "passphrase or recovery key from password agent"
	fromConsole = "passphrase or recovery key from console"
)

// TestAttach opens a volume in every way that needs no device.
func TestAttach(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.WriteFile(t, "/run/wrong-key", []byte("wrong"), 0o600)
	server := u.keyServer(t, keyFile)
	for _, tt := range []struct {
		name    string
		replies []string
		args    []string
		by      string
		slot    int
	}{
		{"passphrase by agent", []string{"+" + passphrase}, []string{"-", "password-cache=no"}, fromAgent, 0},
		{"recovery key by agent", []string{"+" + s.recovery}, []string{"-", "password-cache=no"}, fromAgent, 2},
		{"key file", nil, []string{"/run/test-key", "luks"}, "key file /run/test-key", 1},
		{"key server", nil, []string{server}, "key file " + server, 1},
		{"wrong key file with one try", []string{"+" + passphrase}, []string{"/run/wrong-key", "tries=1"}, fromAgent, 0},
		{"kernel keyring", nil, nil, "passphrase or recovery key from kernel keyring", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			agent := u.agent(t, tt.replies...)
			u.attach(t, append([]string{"vol", disk}, tt.args...)...)
			if got := u.contents(t, "vol"); got != inside {
				t.Errorf("the file holds %q", got)
			}
			if r := u.report(t, "vol"); r.Opened.By != tt.by || *r.Opened.Keyslot != tt.slot {
				t.Errorf("report: %+v", r)
			}
			if asked := agent.Wait(t).Stdout; strings.Count(asked, "Id=cryptsetup:"+disk+"\n") != len(tt.replies) {
				t.Errorf("asked: %s", asked)
			}
		})
	}
}

// keyServer starts a server that sends the key to a client that says that it wants
// that of the volume vol, and checks at the end of the test that one did.
func (u *unit) keyServer(t *testing.T, key string) (path string) {
	t.Helper()
	path = "/run/key-server"
	p := u.Start(t, Command{Args: []string{u.Program(t, "./e2e/answer"), "--server", path, key}})
	p.Expect(t, "listening", slow)
	t.Cleanup(func() {
		p.Signal(t, syscall.SIGKILL)
		if out := p.Wait(t).Stdout; !strings.HasSuffix(out, "/cryptsetup/vol\n") {
			t.Errorf("key server: %s", out)
		}
		u.Shell(t, "rm "+path)
	})
	return path
}

// silentServer starts a server that accepts, prints that and says nothing.
func (u *unit) silentServer(t *testing.T) (path string, p *Process) {
	t.Helper()
	path = "/run/silent-server"
	p = u.Start(t, Command{Args: []string{u.Program(t, "./e2e/answer"), "--server", path}})
	p.Expect(t, "listening", slow)
	t.Cleanup(func() { p.Signal(t, syscall.SIGKILL); p.Wait(t); u.Shell(t, "rm "+path) })
	return path, p
}

// TestAttachOnTheConsole types at a terminal.
func TestAttachOnTheConsole(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	p := u.onTerminal(t, "attach", "vol", disk, "-", "password-cache=no")
	p.Expect(t, "Please enter passphrase or recovery key for disk vol: ", slow)
	p.Write(t, "wrong\n")
	p.Expect(t, "Wrong passphrase or recovery key, please try again", slow)
	p.Write(t, passphrase+"\n")
	r := p.Wait(t)
	t.Cleanup(func() { u.detach(t, "vol") })
	if r.Status != 0 || strings.Contains(r.Stdout, passphrase) {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	if got := u.report(t, "vol").Opened.By; got != fromConsole || u.contents(t, "vol") != inside {
		t.Errorf("opened by %s", got)
	}
}

// TestKeyOnUSBStick plugs the stick with the key file in while attach asks.
func TestKeyOnUSBStick(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	disk, stick := u.AddDisk(t, Disk{Path: copyOf(t, s.image)}), makeStick(t)
	p := u.onTerminal(t, "attach", "vol", disk, "/keys/vol:LABEL=stick", "keyfile-timeout=120,password-cache=no")
	p.Expect(t, "Please enter passphrase or recovery key for disk vol: ", slow) // a person could type
	p.Write(t, "half of a passphr")
	time.Sleep(3 * time.Second)
	u.PlugUSBStick(t, Disk{Path: copyOf(t, stick)})
	r := p.Wait(t)
	t.Cleanup(func() { u.detach(t, "vol") })
	if r.Status != 0 || u.contents(t, "vol") != inside {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	if got := u.report(t, "vol").Opened.By; got != "key file /keys/vol on LABEL=stick" {
		t.Errorf("opened by %s", got)
	}
	if left := u.Shell(t, "ls /run/systemd/ask-password; mount | grep sd || true").Stdout; left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// makeStick makes the image of a stick with the key file and the header of the
// sample, labelled stick.
func makeStick(t *testing.T) string {
	t.Helper()
	s := makeSample(t)
	return artefact(t, "stick.img", func(path string) error {
		source := filepath.Join(filepath.Dir(path), "stick")
		if err := os.MkdirAll(filepath.Join(source, "keys"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(source, "keys/vol"), []byte(keyFile), 0o600); err != nil {
			return err
		}
		if err := execute(nil, nil, "cryptsetup", "luksHeaderBackup", s.image, "--header-backup-file", filepath.Join(source, "header")); err != nil {
			return err
		}
		return execute(nil, nil, "mke2fs", "-q", "-t", "ext4", "-L", "stick", "-d", source, path, "24M")
	})
}

// TestAttachAllFromCrypttab attaches two volumes of a crypttab with one passphrase.
func TestAttachAllFromCrypttab(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	first := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.AddDisk(t, Disk{Path: otherUUID(t, copyOf(t, s.image), 1)})
	u.WriteFile(t, "/run/crypttab", fmt.Appendf(nil, "# test\none %s - password-cache=no\ntwo\\x20b UUID=%s none discard,password-cache=no\nnot /dev/none - noauto\n", first, uuidNumber(1)), 0o600)
	agent := u.agent(t, "+"+passphrase)
	r := u.start(t, "attach-all", "--crypttab=/run/crypttab", "--initrd").Wait(t)
	if r.Status != 0 {
		t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
	}
	if got := u.Shell(t, "ls /dev/mapper").Stdout; got != "control\none\ntwo\\x20b\n" {
		t.Errorf("nodes: %s", got)
	}
	if got := u.contents(t, `two\x20b`); got != inside {
		t.Errorf("the file holds %q", got)
	}
	agent.Wait(t)
	u.Run(t, u.path, "detach", "one")
	u.detach(t, "two b")
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.WriteFile(t, "/run/crypttab", []byte("one "+first+" /run/test-key\n"), 0o600)
	u.Shell(t, "chmod 666 /run/crypttab")
	if r := u.Try(t, u.path, "attach-all", "--crypttab=/run/crypttab", "--initrd"); r.Status != 0 || !strings.Contains(r.Stderr, "/run/crypttab: others than root can change it: owner 0, mode 0666") {
		t.Errorf("crypttab in an unpacked image that others can write: exit status %d\n%s", r.Status, r.Stderr)
	}
	u.detach(t, "one")
}
