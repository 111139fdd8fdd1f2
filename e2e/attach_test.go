package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/testenv"
)

// What opens the volumes of these tests.
const (
	passphrase = "correct horse battery"
	keyFile    = "key file\n"
	inside     = "the contents of the volume\n"
)

// sample is a LUKS2 volume with an ext4 file system, made without device-mapper by
// real cryptsetup and systemd-cryptenroll: keyslot 0 has the passphrase, 1 the key
// file, 2 a recovery key.
type sample struct {
	image    string // not to be changed
	uuid     string
	recovery string
}

// makeSample makes the volume once per test run.
func makeSample(t testing.TB) *sample {
	t.Helper()
	testenv.Need(t, "cryptsetup", "mke2fs", "systemd-cryptenroll")
	image := artefact(t, "sample.img", writeSample)
	recovery, err := os.ReadFile(image + ".recovery")
	if err != nil {
		t.Fatal(err)
	}
	return &sample{image, strings.TrimSpace(testenv.Run(t, "cryptsetup", "luksUUID", image)), strings.TrimSpace(string(recovery))}
}

func writeSample(image string) error {
	dir := filepath.Dir(image)
	source, pass, key := filepath.Join(dir, "sample"), filepath.Join(dir, "pass"), filepath.Join(dir, "key")
	for path, content := range map[string]string{pass: passphrase, key: keyFile, filepath.Join(source, "file"): inside, image: ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	if err := os.Truncate(image, 24<<20); err != nil {
		return err
	}
	cheap := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", pass}
	for _, args := range [][]string{
		{"mke2fs", "-q", "-t", "ext4", "-d", source, image, "8M"},
		append([]string{"cryptsetup", "reencrypt", "-q", "--encrypt", "--type", "luks2", "--reduce-device-size", "16M", image}, cheap...),
		append([]string{"cryptsetup", "luksAddKey", "-q", image, key}, cheap...),
	} {
		if err := execute(nil, nil, args...); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	if err := execute([]string{"PASSWORD=" + passphrase}, &out, "systemd-cryptenroll", "--recovery-key", image); err != nil {
		return err
	}
	recovery := regexp.MustCompile(`[a-z]{8}(-[a-z]{8}){7}`).Find(out.Bytes())
	return os.WriteFile(image+".recovery", recovery, 0o600)
}

func execute(env []string, out io.Writer, args ...string) error {
	var errors bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, &errors
	if err := cmd.Run(); err != nil {
		return &commandError{strings.Join(args, " "), err, errors.Bytes()}
	}
	return nil
}

// copyOf is a copy of an image that a test may change.
func copyOf(t testing.TB, image string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(image))
	testenv.Run(t, "cp", "--sparse=always", image, path)
	return path
}

// unit is cryptsetup-unit in a guest.
type unit struct {
	*VM
	path string
}

func newUnit(t testing.TB, vm *VM) *unit {
	t.Helper()
	return &unit{vm, vm.Program(t, "./cryptsetup-unit")}
}

// start runs the command without waiting for it.
func (u *unit) start(t *testing.T, args ...string) *Process {
	t.Helper()
	return u.Start(t, Command{Args: append([]string{u.path}, args...)})
}

// onTerminal runs the command on a terminal, where it shows what it waits for.
func (u *unit) onTerminal(t *testing.T, args ...string) *Process {
	t.Helper()
	return u.Start(t, Command{Args: append([]string{u.path}, args...), Terminal: true})
}

// slow is more than enough for anything in an emulated machine that is busy.
const slow = 40 * time.Second

// attach runs attach with the given arguments, which has to succeed, and has the
// volume detached at the end.
func (u *unit) attach(t *testing.T, args ...string) Result {
	t.Helper()
	r := u.start(t, append([]string{"attach"}, args...)...).Wait(t)
	if r.Status != 0 {
		t.Fatalf("attach %q: exit status %d\n%s%s", args, r.Status, r.Stdout, r.Stderr)
	}
	t.Cleanup(func() { u.detach(t, args[0]) })
	t.Logf("attach took %v, CPU %v", r.Ended-r.Started, r.CPU())
	return r
}

// detach takes a volume away and looks for what is left.
func (u *unit) detach(t *testing.T, name string) {
	t.Helper()
	if r := u.Try(t, u.path, "detach", name); r.Status != 0 {
		t.Errorf("detach: exit status %d\n%s", r.Status, r.Stderr)
	}
	if left := u.Shell(t, "ls /dev/mapper; dmsetup ls").Stdout; left != "control\nNo devices found\n" {
		t.Errorf("left after detaching: %q", left)
	}
}

// contents mounts a mapping and reads the file in it.
func (u *unit) contents(t *testing.T, name string) string {
	t.Helper()
	return u.Shell(t, "mount -t ext4 -o ro '/dev/mapper/"+name+"' /mnt; cat /mnt/file; umount /mnt").Stdout
}

// agent answers questions in the guest. The result's output has them.
func (u *unit) agent(t *testing.T, replies ...string) *Process {
	t.Helper()
	p := u.Start(t, Command{Args: append([]string{u.Program(t, "./e2e/answer")}, replies...)})
	t.Cleanup(func() {
		if p.Running() {
			p.Signal(t, syscall.SIGKILL)
		}
	})
	return p
}

// attempt is the part of /run/luksmith/NAME.json that the tests look at.
type attempt struct {
	Result, Error string
	Exit          int
	Opened        struct {
		By             string
		Keyslot, Token *int
	}
	Identity string
	Failures []struct {
		Way, Error string
		Exit       int
	}
}

func (u *unit) report(t *testing.T, name string) (a attempt) {
	t.Helper()
	if err := json.Unmarshal([]byte(u.Shell(t, "cat '/run/luksmith/"+name+".json'").Stdout), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAttach opens a volume in every way that needs no device.
func TestAttach(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.WriteFile(t, "/run/wrong-key", []byte("wrong"), 0o600)
	id := "Id=cryptsetup:" + disk + "\n"
	for _, tt := range []struct {
		name    string
		replies []string
		args    []string
		by      string
		slot    int
	}{
		{"recovery key by agent", []string{"+" + s.recovery}, []string{"-", "password-cache=no"}, "passphrase or recovery key from password agent", 2},
		{"key file", nil, []string{"/run/test-key", "luks"}, "key file /run/test-key", 1},
		{"wrong key file with one try", []string{"+" + passphrase}, []string{"/run/wrong-key", "tries=1"}, "passphrase or recovery key from password agent", 0},
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
			if asked := agent.Wait(t).Stdout; strings.Count(asked, id) != len(tt.replies) {
				t.Errorf("asked: %s", asked)
			}
		})
	}
}

// TestAttachOnTheConsole types at a terminal.
func TestAttachOnTheConsole(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
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
}

// TestMappingIsThatOfCryptsetup compares table and uuid.
func TestMappingIsThatOfCryptsetup(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	header := filepath.Join(t.TempDir(), "header")
	testenv.Run(t, "cryptsetup", "luksHeaderBackup", s.image, "--header-backup-file", header)
	pushed := "/run/test-header" // cryptsetup wants to lock it
	u.Shell(t, "cp "+u.Push(t, header)+" "+pushed)
	for _, tt := range []struct {
		name          string
		options, open []string
	}{
		{"plain", nil, nil},
		{"flags", []string{"discard,same-cpu-crypt,no-read-workqueue,no-write-workqueue"}, []string{"--allow-discards", "--perf-same_cpu_crypt", "--perf-no_read_workqueue", "--perf-no_write_workqueue"}},
		{"read-only", []string{"read-only"}, []string{"--readonly"}},
		{"header", []string{"header=" + pushed}, []string{"--header", pushed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
			show := "dmsetup table --showkeys vol; dmsetup info -c --noheadings -o uuid,attr vol"
			u.Run(t, append([]string{"cryptsetup", "open", "--key-file", "/run/test-key", disk, "vol"}, tt.open...)...)
			want := u.Shell(t, show+"; cryptsetup close vol").Stdout
			u.attach(t, append([]string{"vol", disk, "/run/test-key"}, tt.options...)...)
			if got := u.Shell(t, show).Stdout; got != want {
				t.Errorf("here       %s\ncryptsetup %s", got, want)
			}
			if !strings.Contains(want, ":64:logon:cryptsetup:"+s.uuid+"-d0 ") {
				t.Errorf("table: %s", want)
			}
		})
	}
}

// TestDiskThatComesLater plugs the disk in while attach waits.
func TestDiskThatComesLater(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	p := u.onTerminal(t, "attach", "vol", "UUID="+s.uuid, "/run/test-key", "x-systemd.device-timeout=120")
	p.Expect(t, "waiting for device UUID="+s.uuid+" for up to 2m", slow)
	time.Sleep(2 * time.Second)
	u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	plugged := time.Now()
	r := p.Wait(t)
	took := time.Since(plugged)
	t.Cleanup(func() { u.detach(t, "vol") })
	if r.Status != 0 || u.contents(t, "vol") != inside {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	t.Logf("mapped %v after the disk was plugged in, CPU %v", took, r.CPU())
}

func TestDiskThatNeverComes(t *testing.T) {
	u := newUnit(t, Shared(t))
	r := u.start(t, "attach", "vol", "LABEL=absent", "-", "x-systemd.device-timeout=2").Wait(t)
	if r.Status != 10 || !strings.Contains(r.Stderr, "device LABEL=absent did not appear within 2s") {
		t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
	}
	if took := r.Ended - r.Started; took < 2*time.Second || took > slow {
		t.Errorf("took %v", took)
	}
}

// TestKeyOnUSBStick plugs the stick with the key file in while attach asks.
func TestKeyOnUSBStick(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	stick := artefact(t, "stick.img", func(path string) error {
		source := filepath.Join(filepath.Dir(path), "stick")
		if err := os.MkdirAll(filepath.Join(source, "keys"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(source, "keys/vol"), []byte(keyFile), 0o600); err != nil {
			return err
		}
		return execute(nil, nil, "mke2fs", "-q", "-t", "ext4", "-L", "stick", "-d", source, path, "4M")
	})
	p := u.onTerminal(t, "attach", "vol", disk, "/keys/vol:LABEL=stick", "keyfile-timeout=120,password-cache=no")
	p.Expect(t, "Please enter passphrase or recovery key for disk vol: ", slow) // a person could type
	p.Write(t, "half of a passphr")
	time.Sleep(2 * time.Second)
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

// TestSignalsLeaveNothingMapped interrupts attach while it asks.
func TestSignalsLeaveNothingMapped(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := u.onTerminal(t, "attach", "vol", disk, "-", "password-cache=no")
		p.Expect(t, "Please enter passphrase", slow)
		p.Signal(t, signal)
		if r := p.Wait(t); r.Status != 11 {
			t.Errorf("%v: exit status %d\n%s", signal, r.Status, r.Stdout)
		}
		if left := u.Shell(t, "ls /run/systemd/ask-password /dev/mapper; cat /proc/keys | grep -c cryptsetup:"+s.uuid+" || true").Stdout; left != "/dev/mapper:\ncontrol\n\n/run/systemd/ask-password:\n0\n" {
			t.Errorf("%v: left behind: %q", signal, left)
		}
	}
}

// TestAlreadyAttached tells this volume from another one.
func TestAlreadyAttached(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	first, second := u.AddDisk(t, Disk{Path: copyOf(t, s.image)}), u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.attach(t, "vol", first, "/run/test-key")
	for args, want := range map[string]int{"vol " + first: 0, "vol " + second: 5, "other " + first: 5} {
		if r := u.Try(t, append([]string{u.path, "attach"}, append(strings.Fields(args), "/run/test-key", "headless")...)...); r.Status != want {
			t.Errorf("attach %s: exit status %d, want %d\n%s", args, r.Status, want, r.Stderr)
		}
	}
	if r := u.Try(t, u.path, "attach", "third", "UUID="+s.uuid, "/run/test-key"); r.Status == 0 || !strings.Contains(r.Stderr, first) || !strings.Contains(r.Stderr, second) {
		t.Errorf("two devices with one UUID: exit status %d\n%s", r.Status, r.Stderr)
	}
}

// TestAttachAllFromCrypttab attaches two volumes of a crypttab with one passphrase.
func TestAttachAllFromCrypttab(t *testing.T) {
	s, u := makeSample(t), newUnit(t, Shared(t))
	first := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	other := copyOf(t, s.image)
	testenv.Run(t, "cryptsetup", "luksUUID", "-q", "--uuid", "11111111-2222-3333-4444-555555555555", other)
	u.AddDisk(t, Disk{Path: other})
	u.WriteFile(t, "/run/crypttab", fmt.Appendf(nil, "# test\none %s - password-cache=no\ntwo\\x20b UUID=11111111-2222-3333-4444-555555555555 none discard,password-cache=no\nnot /dev/none - noauto\n", first), 0o600)
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
	u.Shell(t, "chmod 666 /run/crypttab")
	if r := u.Try(t, u.path, "attach-all", "--crypttab=/run/crypttab", "--initrd"); r.Status != 1 || !strings.Contains(r.Stderr, "others than root can change the file") {
		t.Errorf("crypttab that others can write: exit status %d\n%s", r.Status, r.Stderr)
	}
}
