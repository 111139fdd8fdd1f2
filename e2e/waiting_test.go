package e2e

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"luksmith/e2e/wire"
	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
)

// TestTimes measures by the clock of a guest in which an instruction takes a
// nanosecond: what the host does meanwhile has no part in it.
func TestTimes(t *testing.T) {
	t.Parallel()
	u := newUnit(t, Boot(t, keyConfig(t, Config{CountInstructions: true})))
	s := makeSample(t)
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	t.Run("disk that comes later", func(t *testing.T) { comesLater(t, u, s) })
	key := u.AddDisk(t, Disk{Path: keyVolume(t)})
	typed := []wire.Keys{{After: 2 * time.Second, Text: []byte(passphrase + "\n")}}
	soon := []wire.Keys{{After: time.Second, Text: []byte(passphrase + "\n")}}
	late := []wire.Keys{{After: 5 * time.Second, Text: []byte(passphrase + "\n")}}
	for _, tt := range []struct {
		name, touch, fault string
		keys               []wire.Keys
		by                 string
	}{
		{"passphrase after 2 s and key after 5 s", "5s", "", typed, fromConsole},
		{"key after 2 s and passphrase after 5 s", "2s", "", late, "fido2 token"},
		{"passphrase after 1 s and a key that answers nothing", "now", "silent", soon, fromConsole},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plugged := u.virtualKey(t, "--touch="+tt.touch)
			if tt.fault != "" {
				plugged.Tell(t, "fault "+tt.fault)
			}
			r := u.Start(t, Command{Args: []string{u.path, "attach", "vol", key, "-", "fido2-device=auto,token-timeout=60,password-cache=no"}, Terminal: true, Type: tt.keys}).Wait(t)
			left := u.Shell(t, "ls /run/systemd/ask-password; ps | grep luksmith-fido2 | grep -v grep || true").Stdout
			t.Cleanup(func() { u.detach(t, "vol") })
			took := r.Ended - r.Started
			if got := u.report(t, "vol").Opened.By; r.Status != 0 || got != tt.by || took > 3*time.Second {
				t.Errorf("exit status %d, opened by %s after %v\n%s", r.Status, got, took, r.Stdout)
			}
			if left != "" {
				t.Errorf("left behind: %s", left)
			}
			t.Logf("mapped after %v", took)
		})
	}
}

// comesLater plugs the disk in while attach waits.
func comesLater(t *testing.T, u *unit, s *sample) {
	p := u.onTerminal(t, "attach", "vol", "UUID="+s.uuid, "/run/test-key", "x-systemd.device-timeout=300")
	p.Expect(t, "waiting for device UUID="+s.uuid+" for up to 5m", slow)
	before := u.cpu(t)
	time.Sleep(3 * time.Second)
	waiting := u.cpu(t) - before
	u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	r := p.Wait(t)
	t.Cleanup(func() { u.detach(t, "vol") })
	if r.Status != 0 || u.contents(t, "vol") != inside {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	took := r.Ended - u.diskFound(t)
	t.Logf("mapped %v after the disk was there; %v of CPU time while waiting for 3 s", took, waiting)
	if took > time.Second {
		t.Errorf("mapped only %v after the disk was there", took)
	}
	if waiting > 30*time.Millisecond {
		t.Errorf("waiting for 3 s took %v of CPU time", waiting)
	}
}

// cpu is the CPU time that cryptsetup-unit has used so far.
func (u *unit) cpu(t *testing.T) (sum time.Duration) {
	t.Helper()
	for line := range strings.Lines(u.Shell(t, "cat /proc/$(pidof cryptsetup-unit)/task/*/schedstat").Stdout) {
		n, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// diskFound is when the kernel found the last disk, by the clock of Exit.
func (vm *VM) diskFound(t *testing.T) time.Duration {
	t.Helper()
	all := regexp.MustCompile(`(?m)^\[ *(\d+\.\d+)\] sd .* logical blocks`).FindAllStringSubmatch(vm.Shell(t, "dmesg").Stdout, -1)
	if len(all) == 0 {
		t.Fatal("the kernel has found no disk")
	}
	seconds, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
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

// keyConfig adds to a guest what FIDO2 keys need.
func keyConfig(t *testing.T, c Config) Config {
	t.Helper()
	c.Modules = append(c.Modules, "uhid", "hid-generic")
	c.Programs = append(c.Programs, "/usr/lib/x86_64-linux-gnu/libfido2.so.1")
	c.Files = map[string]string{"/usr/lib/luksmith/luksmith-fido2": fidotest.Program(t)}
	return c
}

// keyVolume is a copy of the sample that the key of virtualKey opens with a touch.
func keyVolume(t *testing.T) string {
	t.Helper()
	image := copyOf(t, makeSample(t).image)
	enrollKey(t, image)
	return image
}

func enrollKey(t *testing.T, image string) {
	t.Helper()
	testenv.Need(t, "systemd-cryptenroll")
	path, err := fidotest.New(fidotest.Config{Seed: keySeed}).Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	enroll(t, image, nil, "--fido2-device="+path, "--fido2-with-client-pin=no", "--fido2-with-user-presence=yes")
}
