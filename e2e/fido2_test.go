package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
)

// buildFIDO2Helper compiles luksmith-fido2, the only kind of program with cgo.
func buildFIDO2Helper(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/usr/include/fido.h"); err != nil {
		testenv.Missing(t, "libfido2-dev", "sh .ci/install-deps installs it")
	}
	testenv.Need(t, "gcc")
	return artefact(t, "luksmith-fido2", func(out string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./tokens/fido2/luksmith-fido2")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if output, err := cmd.CombinedOutput(); err != nil {
			return &commandError{cmd.String(), err, output}
		}
		return nil
	})
}

// fidoLibrary is what luksmith-fido2 is linked to.
const fidoLibrary = "/usr/lib/x86_64-linux-gnu/libfido2.so.1"

// fido2Config is a guest in which FIDO2 support is installed, with systemd 252 and
// libfido2's tools for comparison.
func fido2Config(t *testing.T) Config {
	t.Helper()
	return Config{
		Programs: []string{"/usr/bin/fido2-token", "/lib/systemd/systemd-cryptsetup", fidoLibrary,
			"/usr/lib/x86_64-linux-gnu/cryptsetup/libcryptsetup-token-systemd-fido2.so", "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1"},
		Files:   map[string]string{"/usr/lib/luksmith/luksmith-fido2": buildFIDO2Helper(t)},
		Modules: []string{"uhid", "hid-generic", "loop"},
	}
}

// keyMake is a security key that can be made twice: on the host behind a terminal,
// where enrolling takes no time, and in the guest as a USB device.
type keyMake struct {
	name, pin string
	firmware  fidotest.Firmware
	uv        bool
}

var (
	keyA = keyMake{name: "Key A", pin: "1111"}
	keyB = keyMake{name: "Key B", pin: "2222", firmware: fidotest.CTAP20}
	keyC = keyMake{name: "Key C", uv: true}
)

// plug plugs the key into the guest.
func (k keyMake) plug(t *testing.T, vm *VM, args ...string) *SecurityKey {
	t.Helper()
	all := []string{"--seed=" + k.name, "--product=" + k.name, "--pin=" + k.pin}
	if k.firmware == fidotest.CTAP20 {
		all = append(all, "--firmware=2.0")
	}
	if k.uv {
		all = append(all, "--uv")
	}
	return vm.PlugKey(t, append(all, args...)...)
}

// enrol enrols the key on a volume of the host with a program, ours or systemd's,
// and returns what it prints.
func (k keyMake) enroll(t *testing.T, program, image string, options ...string) string {
	t.Helper()
	path, err := fidotest.New(fidotest.Config{Seed: k.name, Product: k.name, PIN: k.pin, Firmware: k.firmware, BuiltInUV: k.uv}).Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(append([]string{"--fido2-device=" + path}, options...), image)...)
	cmd.Env = append(os.Environ(), "PASSWORD="+passphrase, "PIN="+k.pin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// ourEnroller is cryptenroll on the host, with its helper beside it.
func ourEnroller(t *testing.T) string {
	t.Helper()
	buildFIDO2Helper(t)
	return build(t, "./cryptenroll")
}

// fidoRig is the guest of all FIDO2 tests.
type fidoRig struct {
	*unit
	cryptenroll string // in the guest
}

// TestFIDO2 has security keys that are hidraw devices, found by libfido2 itself, and
// the installed helper program. One guest serves all the tests.
func TestFIDO2(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.NeedRoot(t)
	testenv.Need(t, "fido2-token", "systemctl", "systemd-cryptenroll")
	vm := Boot(t, fido2Config(t))
	r := &fidoRig{newUnit(t, vm), vm.Program(t, "./cryptenroll")}
	vm.RunGoTests(t, "./tokens/fido2", "^TestGuest")
	for _, tt := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"enrol and unlock when plugged in", r.enrollAndUnlock},
		{"wrong PIN with three keyslots", r.wrongPIN},
		{"three wrong PINs", r.blockedPIN},
		{"unplugged during the touch", r.unplugged},
		{"two keys", r.twoKeys},
		{"without parameters in the header", r.noParametersInHeader},
		{"systemd", r.systemd},
		{"support taken away", r.supportTakenAway},
	} {
		t.Run(tt.name, tt.run)
	}
}

// begin begins to attach a volume; whatever happens, it ends with the test.
func (r *fidoRig) begin(t *testing.T, disk, keyFile, options string) *Process {
	t.Helper()
	p := r.onTerminal(t, "attach", "vol", disk, keyFile, options+",password-cache=no")
	t.Cleanup(func() {
		if p.Running() {
			p.Signal(t, syscall.SIGTERM)
			p.Wait(t)
		}
	})
	return p
}

// waitForKey begins to attach while no key is plugged in.
func (r *fidoRig) waitForKey(t *testing.T, disk string) *Process {
	t.Helper()
	p := r.begin(t, disk, "-", "fido2-device=auto,token-timeout=300")
	p.Expect(t, `waiting for a security device \(fido2\) for up to 5m`, slow)
	p.Expect(t, "Please enter passphrase or recovery key for disk vol: ", slow)
	return p
}

// opens waits until a volume is attached and looks into it.
func (r *fidoRig) opens(t *testing.T, p *Process, by string) Result {
	t.Helper()
	result := p.Wait(t)
	t.Cleanup(func() { r.detach(t, "vol") })
	if result.Status != 0 {
		t.Fatalf("exit status %d\n%s", result.Status, result.Stdout)
	}
	if got := r.report(t, "vol").Opened.By; !strings.HasPrefix(got, by) || r.contents(t, "vol") != inside {
		t.Errorf("opened by %s, want %s\n%s", got, by, result.Stdout)
	}
	if left := r.Shell(t, "ls /run/systemd/ask-password; ps | grep luksmith-fido2 | grep -v grep || true").Stdout; left != "" {
		t.Errorf("left behind: %s", left)
	}
	t.Logf("%v after the start, CPU %v; the terminal:\n%s", result.Ended-result.Started, result.CPU(), result.Stdout)
	return result
}

// enrolAndUnlock does both in the guest, on one volume with three kinds of keys.
func (r *fidoRig) enrollAndUnlock(t *testing.T) {
	disk := r.AddDisk(t, Disk{Path: copyOf(t, makeSample(t).image)})
	for _, tt := range []struct {
		key      keyMake
		options  []string
		requires string
	}{
		{keyA, nil, "PIN, touch"},
		{keyB, []string{"--fido2-with-client-pin=no"}, "touch"},
		{keyC, []string{"--fido2-with-user-verification=yes"}, "user verification, touch"},
	} {
		t.Run(tt.requires, func(t *testing.T) {
			key := tt.key.plug(t, r.VM)
			args := append([]string{r.cryptenroll, "--fido2-device=auto", disk}, tt.options...)
			enrolled := r.Start(t, Command{Args: args, Env: []string{"PASSWORD=" + passphrase, "PIN=" + tt.key.pin}}).Wait(t)
			if enrolled.Status != 0 || key.Stats(t).Touches != 3 {
				t.Fatalf("exit status %d, %+v\n%s", enrolled.Status, key.Stats(t), enrolled.Stderr)
			}
			if list := r.Run(t, r.cryptenroll, disk).Stdout; !regexp.MustCompile(`(?m)^ +\d fido2 +` + tt.key.name + ` .*` + tt.requires).MatchString(list) {
				t.Errorf("list: %s", list)
			}
			key.Tell(t, "unplug")
			p := r.waitForKey(t, disk)
			key.Tell(t, "plug")
			if strings.Contains(tt.requires, "PIN") {
				p.Expect(t, "PIN of Key A, 8 tries left", slow)
				p.Write(t, tt.key.pin+"\n")
			}
			r.opens(t, p, "fido2 token")
			if s := key.Stats(t); s.Touches != 4 || s.WrongPINs != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// thrice is a volume with three keyslots for one key.
func thrice(t *testing.T) string {
	return artefact(t, "thrice.img", func(path string) error {
		if err := execute(nil, nil, "cp", "--sparse=always", makeSample(t).image, path); err != nil {
			return err
		}
		for range 3 {
			keyA.enroll(t, ourEnroller(t), path, "--allow-duplicate", "--label=disk")
		}
		return nil
	})
}

// wrongPIN: the symptom was that a wrong PIN cost a try for each enrolled keyslot.
func (r *fidoRig) wrongPIN(t *testing.T) {
	key := keyA.plug(t, r.VM)
	p := r.begin(t, r.AddDisk(t, Disk{Path: copyOf(t, thrice(t))}), "-", "fido2-device=auto")
	p.Expect(t, `PIN of Key A \(label disk\), 8 tries left`, slow)
	p.Write(t, "9999\n")
	p.Expect(t, `Wrong PIN, please try again\.`, slow)
	p.Expect(t, `PIN of Key A \(label disk\), 7 tries left`, slow)
	if s := key.Stats(t); s.WrongPINs != 1 || s.PINRetries != 7 {
		t.Errorf("%+v", s)
	}
	p.Write(t, keyA.pin+"\n")
	r.opens(t, p, "fido2 token")
	if s := key.Stats(t); s.Touches != 1 || s.PINRetries != 8 {
		t.Errorf("%+v", s)
	}
}

// blockedPIN unplugs the key and plugs it in again, as the message says.
func (r *fidoRig) blockedPIN(t *testing.T) {
	key := keyA.plug(t, r.VM)
	p := r.begin(t, r.AddDisk(t, Disk{Path: copyOf(t, thrice(t))}), "-", "fido2-device=auto,token-timeout=300")
	for _, left := range []string{"8", "7", "6"} {
		p.Expect(t, `PIN of Key A \(label disk\), `+left+" tries left", slow)
		p.Write(t, "9999\n")
	}
	p.Expect(t, "Key A takes no PIN after too many wrong ones in a row; unplug it and plug it in again", slow)
	p.Expect(t, `waiting for a security device`, slow)
	key.Tell(t, "unplug")
	key.Tell(t, "plug")
	p.Expect(t, `PIN of Key A \(label disk\), 5 tries left`, slow)
	p.Write(t, keyA.pin+"\n")
	r.opens(t, p, "fido2 token")
}

// unplugged pulls the key out when it is to be touched, and puts it back.
func (r *fidoRig) unplugged(t *testing.T) {
	key := keyB.plug(t, r.VM, "--touch=never")
	image := copyOf(t, makeSample(t).image)
	keyB.enroll(t, ourEnroller(t), image, "--fido2-with-client-pin=no", "--label=home")
	p := r.begin(t, r.AddDisk(t, Disk{Path: image}), "-", "fido2-device=auto,token-timeout=300")
	p.Expect(t, `Touch Key B \(label home\) to unlock`, slow)
	key.Tell(t, "unplug")
	p.Expect(t, `waiting for a security device \(fido2\)`, slow)
	key.Tell(t, "touch now")
	key.Tell(t, "plug")
	r.opens(t, p, "fido2 token")
}

// twoKeys are both plugged in, and the volume has one of them.
func (r *fidoRig) twoKeys(t *testing.T) {
	other := keyB.plug(t, r.VM)
	right := keyA.plug(t, r.VM)
	p := r.begin(t, r.AddDisk(t, Disk{Path: copyOf(t, thrice(t))}), "-", "fido2-device=auto")
	p.Expect(t, "PIN of Key A", slow)
	p.Write(t, keyA.pin+"\n")
	if out := r.opens(t, p, "fido2 token").Stdout; strings.Contains(out, keyB.name) {
		t.Errorf("the other key is mentioned:\n%s", out)
	}
	if s := other.Stats(t); s.Touches != 0 || s.TimedOut != 0 || s.PINRetries != 8 || right.Stats(t).Touches != 1 {
		t.Errorf("the other key: %+v, the right one: %+v", s, right.Stats(t))
	}
}

// noParametersInHeader uses the line for crypttab that cryptenroll prints.
func (r *fidoRig) noParametersInHeader(t *testing.T) {
	image := copyOf(t, makeSample(t).image)
	salt := filepath.Join(t.TempDir(), "salt")
	const saltText = "a salt of exactly 32 bytes, yes!"
	if err := os.WriteFile(salt, []byte(saltText), 0o600); err != nil {
		t.Fatal(err)
	}
	out := keyB.enroll(t, ourEnroller(t), image, "--fido2-salt-file="+salt, "--fido2-parameters-in-header=no")
	line := regexp.MustCompile(`(?m)^ *(\S+) UUID=(\S+) (\S+) (fido2-device=auto,\S+)$`).FindStringSubmatch(out)
	if line == nil || line[3] != salt {
		t.Fatalf("printed:\n%s", out)
	}
	key := keyB.plug(t, r.VM)
	disk := r.AddDisk(t, Disk{Path: image})
	r.WriteFile(t, "/run/salt", []byte(saltText), 0o600)
	server := r.Start(t, Command{Args: []string{r.Program(t, "./e2e/answer"), "--server", "/run/salt.socket", saltText}})
	server.Expect(t, "listening", slow)
	t.Cleanup(func() { server.Signal(t, syscall.SIGKILL); server.Wait(t) })
	for _, file := range []string{"/run/salt", "/run/salt.socket"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			p := r.begin(t, disk, file, line[4])
			p.Expect(t, "PIN of Key B", slow)
			p.Write(t, keyB.pin+"\n")
			p.Expect(t, "Touch Key B", slow)
			r.opens(t, p, "fido2 token")
		})
	}
	server.Expect(t, "/cryptsetup-fido2-salt/vol", slow)
	if s := key.Stats(t); s.Touches != 2 {
		t.Errorf("%+v", s)
	}
}

// systemd exchanges volumes with real systemd 252, for both families of firmware.
func (r *fidoRig) systemd(t *testing.T) {
	for _, key := range []keyMake{keyA, keyB} {
		t.Run(key.name, func(t *testing.T) {
			ours, theirs := copyOf(t, makeSample(t).image), copyOf(t, makeSample(t).image)
			key.enroll(t, ourEnroller(t), ours)
			// systemd 252 would ask for the PIN of the key on a terminal: peer_test.go.
			bare := key
			bare.pin = ""
			bare.enroll(t, "systemd-cryptenroll", theirs, "--fido2-with-client-pin=no")
			plugged := key.plug(t, r.VM)
			cmd := Command{Args: []string{"/lib/systemd/systemd-cryptsetup", "attach", "vol", r.AddDisk(t, Disk{Path: ours}), "-", "fido2-device=auto,headless=1,token-timeout=20"}, Env: []string{"PIN=" + key.pin}}
			if got := r.Start(t, cmd).Wait(t); got.Status != 0 {
				t.Errorf("systemd 252: exit status %d\n%s", got.Status, got.Stderr)
			}
			if got := r.contents(t, "vol"); got != inside {
				t.Errorf("systemd mapped %q", got)
			}
			r.Run(t, "cryptsetup", "close", "vol")
			cmd.Args = []string{r.path, "attach", "vol", r.AddDisk(t, Disk{Path: theirs}), "-", "fido2-device=auto,headless=1"}
			r.opens(t, r.Start(t, cmd), "fido2 token")
			if s := plugged.Stats(t); s.WrongPINs != 0 || s.Touches != 2 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// supportTakenAway hides the library, then the helper: what needs neither goes on
// as before, and the message says what is missing.
func (r *fidoRig) supportTakenAway(t *testing.T) {
	disk := r.AddDisk(t, Disk{Path: copyOf(t, thrice(t))})
	r.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	list := r.Run(t, r.cryptenroll, disk).Stdout
	for path, missing := range map[string]string{
		fidoLibrary:                        "libfido2.so.1",
		"/usr/lib/luksmith/luksmith-fido2": "no luksmith-fido2 in ",
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			r.Run(t, "mv", path, path+".hidden")
			t.Cleanup(func() { r.Run(t, "mv", path+".hidden", path) })
			if got := r.Run(t, r.cryptenroll, disk).Stdout; got != list {
				t.Errorf("list differs:\n%s\n%s", got, list)
			}
			agent := r.agent(t, "+"+passphrase)
			got := r.attach(t, "vol", disk, "-", "fido2-device=auto,token-timeout=60,password-cache=no")
			agent.Wait(t)
			if by := r.report(t, "vol").Opened.By; !strings.HasPrefix(by, "passphrase") {
				t.Errorf("opened by %s", by)
			}
			for _, want := range []string{"FIDO2 support not installed (", missing} {
				if !strings.Contains(got.Stderr, want) {
					t.Errorf("%q is not in\n%s", want, got.Stderr)
				}
			}
			if got.Ended-got.Started > 20*time.Second {
				t.Errorf("took %v", got.Ended-got.Started)
			}
		})
	}
}
