package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// TestSignalsLeaveNothing interrupts attach in each of its stages, by signals and by
// Ctrl-C on its terminal.
func TestSignalsLeaveNothing(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	slowDisk := u.AddDisk(t, Disk{Path: slowVolume(t)})
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.PlugUSBStick(t, Disk{Path: copyOf(t, makeStick(t))}).Node(t)
	server, accepted := u.silentServer(t)
	shows := func(text string) func(*Process) { return func(p *Process) { p.Expect(t, text, slow) } }
	clients := 0
	for _, tt := range []struct {
		name  string
		ready func(*Process) // returns when it is to be interrupted
		args  []string
	}{
		{"waiting for the disk", shows("waiting for device LABEL=absent"), []string{"LABEL=absent", "-"}},
		{"waiting for the stick", shows("waiting for key device LABEL=absent"), []string{disk, "/key:LABEL=absent", "headless,password-cache=no"}},
		{"waiting for a server", func(*Process) {
			clients++
			accepted.Expect(t, fmt.Sprintf("(client.*\\s){%d}", clients), slow)
		}, []string{disk, server, "headless,password-cache=no"}},
		{"asking", shows("Please enter passphrase"), []string{disk, "-", "password-cache=no"}},
		{"asking, header on the stick", shows("Please enter passphrase"), []string{disk, "-", "password-cache=no,header=/header:LABEL=stick"}},
		{"computing", func(*Process) { u.works(t) }, []string{slowDisk, "/run/test-key", "headless,password-cache=no"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, interrupt := range []func(*Process){
				func(p *Process) { p.Signal(t, syscall.SIGTERM) },
				func(p *Process) { p.Signal(t, syscall.SIGINT) },
				func(p *Process) { p.Write(t, "\x03") },
			} {
				p := u.onTerminal(t, append([]string{"attach", "vol"}, tt.args...)...)
				tt.ready(p)
				interrupt(p)
				if r := p.Wait(t); r.Status != 11 {
					t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
				}
				u.nothingLeft(t, s)
			}
		})
	}
	t.Run("any time", func(t *testing.T) { anyTime(t, u, s, disk) })
}

// anyTime ends attach after ever longer times, until it is faster. It has
// either attached the volume, and says so, or nothing is left.
func anyTime(t *testing.T, u *unit, s *sample, disk string) {
	interrupted := 0
	for delay := 20 * time.Millisecond; ; delay += delay / 3 {
		r := u.Try(t, "sh", "-c", fmt.Sprintf("%s attach vol %s /run/test-key headless,password-cache=no & sleep %.3f; kill -TERM $!; wait $!", u.path, disk, delay.Seconds()))
		if r.Status == 0 {
			u.detach(t, "vol")
			break
		}
		if r.Status != 11 && r.Status != 128+int(syscall.SIGTERM) { // before it handles signals
			t.Fatalf("interrupted after %v: exit status %d\n%s", delay, r.Status, r.Stderr)
		}
		u.nothingLeft(t, s)
		interrupted++
	}
	t.Logf("interrupted %d times", interrupted)
}

// nothingLeft looks for what an interrupted attach might leave behind.
func (u *unit) nothingLeft(t *testing.T, s *sample) {
	t.Helper()
	left := u.Shell(t, "ls /run/systemd/ask-password 2>/dev/null || true; dmsetup ls; ls /dev/mapper; mount | grep /dev/sd || true; grep cryptsetup:"+s.uuid+" /proc/keys || true; ps | grep luksmith- | grep -v grep || true; losetup -a").Stdout
	if left != "No devices found\ncontrol\n" {
		t.Errorf("left behind: %q", left)
	}
}

// works waits until cryptsetup-unit has computed for longer than anything takes but
// a key.
func (u *unit) works(t *testing.T) {
	t.Helper()
	for range 200 {
		if u.Try(t, "pidof", "cryptsetup-unit").Status == 0 && u.cpu(t) > 1500*time.Millisecond {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("cryptsetup-unit does not compute")
}

// slowVolume is a volume whose key takes a minute to compute.
func slowVolume(t *testing.T) string {
	t.Helper()
	image := copyOf(t, makeSample(t).image)
	testenv.Run(t, "cryptsetup", "luksConvertKey", "-q", "--key-slot", "1", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "20000000",
		"--key-file", writeTemp(t, keyFile), otherUUID(t, image, 1))
	return image
}

// TestSignalsEndHelpers interrupts attach while a security device wants a touch.
func TestSignalsEndHelpers(t *testing.T) {
	t.Parallel()
	u := newUnit(t, Boot(t, keyConfig(t, Config{})))
	disk := u.AddDisk(t, Disk{Path: keyVolume(t)})
	u.virtualKey(t, "--touch=never")
	p := u.onTerminal(t, "attach", "vol", disk, "-", "fido2-device=auto,headless")
	p.Expect(t, "(?i)touch|confirm", slow)
	p.Write(t, "\x03")
	if r := p.Wait(t); r.Status != 11 {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	u.nothingLeft(t, makeSample(t))
	if strings.Contains(u.Shell(t, "ps").Stdout, "luksmith-fido2") {
		t.Error("the helper is still there")
	}
}
