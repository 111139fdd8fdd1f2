package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

func TestMain(m *testing.M) { Main(m) }

func TestGuestRunsPrograms(t *testing.T) {
	vm := Shared(t)
	t.Logf("kernel %s, %v from its start to the first request, accelerator %s", vm.Kernel, vm.Booted.Round(time.Millisecond), accelerator())
	t.Run("output and status", func(t *testing.T) {
		r := vm.Start(t, Command{Args: []string{"sh", "-c", `cat; echo "$X $PWD" >&2; exit 7`}, Input: "in\n", Env: []string{"X=y"}, Dir: "/tmp"}).Wait(t)
		if r.Stdout != "in\n" || r.Stderr != "y /tmp\n" || r.Status != 7 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("signal", func(t *testing.T) {
		p := vm.Start(t, Command{Args: []string{"sleep", "60"}})
		p.Signal(t, syscall.SIGTERM)
		if r := p.Wait(t); r.Status != 128+int(syscall.SIGTERM) || r.Ended-r.Started > 10*time.Second {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		p := vm.Start(t, Command{Args: []string{"sh", "-c", `read -s x </dev/tty; tty; echo "got $x"`}, Terminal: true})
		p.Write(t, "secret\n")
		p.Expect(t, `/dev/pts/\d+\r\ngot secret\r\n`, 10*time.Second)
		if r := p.Wait(t); r.Status != 0 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("missing program", func(t *testing.T) {
		p := vm.Start(t, Command{Args: []string{"/nonexistent"}})
		p.until(10*time.Second, func() bool { return p.err != "" })
		if !strings.Contains(p.err, "no such file") {
			t.Errorf("error %q", p.err)
		}
	})
	t.Run("files", func(t *testing.T) {
		vm.WriteFile(t, "/run/a/file", []byte("written"), 0o640)
		host := filepath.Join(t.TempDir(), "pushed")
		if err := os.WriteFile(host, []byte("pushed"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := vm.Shell(t, "cat /run/a/file "+vm.Push(t, host)+"; stat -c %a /run/a/file").Stdout; got != "writtenpushed640\n" {
			t.Errorf("got %q", got)
		}
	})
}

func TestGuestSeesHardwareComeAndGo(t *testing.T) {
	vm := Shared(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, []byte(strings.Repeat("content.", 1<<17)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		plug func() *Device
	}{
		{"disk", func() *Device { return vm.PlugDisk(t, Disk{Path: image, ReadOnly: true}) }},
		{"disk with sectors of 4096 bytes", func() *Device { return vm.PlugDisk(t, Disk{Path: image, ReadOnly: true, SectorSize: 4096}) }},
		{"USB stick", func() *Device { return vm.PlugUSBStick(t, Disk{Path: image, ReadOnly: true}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.plug()
			node := d.Node(t)
			if got := vm.Shell(t, "head -c 8 "+node).Stdout; got != "content." {
				t.Errorf("%s begins with %q", node, got)
			}
			d.Remove(t)
			vm.Shell(t, "i=0; while [ -e "+node+" ]; do i=$((i+1)); [ $i -lt 100 ]; sleep 0.05; done")
		})
	}
}

// TestGuestWithTPM takes a TPM from the host to the guest and back.
func TestGuestWithTPM(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	tpm := testenv.StartTPM(t, testenv.TPMOptions{})
	tpm.Stop()
	vm := Boot(t, Config{TPM: tpm.StateDir(), Programs: []string{"/bin/true"}})
	got := vm.Shell(t, "ls /dev/tpm0 /dev/tpmrm0; cat /sys/class/tpm/tpm0/tpm_version_major /sys/class/tpm/tpm0/pcr-sha256/7; /bin/true")
	if want := "/dev/tpm0\n/dev/tpmrm0\n2\n" + strings.ToUpper(SeaBIOSPCR7) + "\n"; got.Stdout != want {
		t.Errorf("got %q, want %q", got.Stdout, want)
	}
}
