package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/tokens/tpm2/eventlog"
)

// machine is a root folder of its own for the command, with a TPM: the logs and
// /var are where the command looks for them.
type machine struct {
	t    testing.TB
	root string
	chip *testenv.TPM
}

// newMachine puts the command without C libraries into an empty folder.
func newMachine(t testing.TB) *machine {
	t.Helper()
	testenv.NeedRoot(t) // for chroot
	testenv.Need(t, "swtpm")
	m := &machine{t, t.TempDir(), testenv.StartTPM(t, testenv.TPMOptions{TCP: true})}
	built, err := staticCommand()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(built)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	syscall.ForkLock.RLock() // else a child of another test keeps it open for writing
	defer syscall.ForkLock.RUnlock()
	own, err := os.OpenFile(filepath.Join(m.root, "cryptenroll"), os.O_WRONLY|os.O_CREATE, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(own, program)
	if err := errors.Join(err, own.Close()); err != nil {
		t.Fatal(err)
	}
	return m
}

// staticCommand is the command without C libraries, built once.
var staticCommand = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "cryptenroll.")
	if err != nil {
		return "", err
	}
	builtFolders = append(builtFolders, dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "cryptenroll"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	return filepath.Join(dir, "cryptenroll"), nil
})

// builtFolders are removed at the end of all tests.
var builtFolders []string

// volume makes a volume in the machine and returns its path there.
func (m *machine) volume() string {
	m.t.Helper()
	path := filepath.Join(m.root, "volume.img")
	if err := os.Rename(luks2test.New(m.t).Path, path); err != nil {
		m.t.Fatal(err)
	}
	return "/volume.img"
}

func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(m.t.Context(), "/cryptenroll", args...)
	cmd.Dir, cmd.Env = "/", []string{"PASSWORD=hunter2"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root, Setsid: true}
	return cmd
}

// boot is a power cycle after which the firmware measured what a recorded log says.
func (m *machine) boot(log string) {
	m.t.Helper()
	text := content(m.t, filepath.Join("../tokens/tpm2/eventlog/testdata", log))
	events, err := eventlog.Parse(text)
	if err != nil {
		m.t.Fatal(err)
	}
	m.chip.Reset()
	for _, e := range events {
		if slices.Contains([]int{2, 7, 9}, e.PCR) && len(e.Digests["sha256"]) == 32 {
			m.chip.Extend(e.PCR, "sha256", e.Digests["sha256"])
		}
	}
	path := filepath.Join(m.root, "sys/kernel/security/tpm0/binary_bios_measurements")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func TestEventLogs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	t.Run("full /var", m.fullVar) // first: nothing was saved there
	m.updatesAreNamed(t)
}

// updatesAreNamed enrols on one recorded boot and unlocks on the next: the command
// names the PCR, the event and the command that repairs it.
func (m *machine) updatesAreNamed(t *testing.T) {
	for _, c := range []struct{ name, before, after, pcrs, moved, event string }{
		{"dbx update", "ubuntu-5.11.0-1008.bin", "ubuntu-5.11.0-1006-dbx.bin", "2+7", "PCR 7 (secure-boot-policy) changed: ",
			"variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"},
		{"Secure Boot off", "ubuntu-5.11.0-1008-secureboot.bin", "ubuntu-5.11.0-1008.bin", "7", "PCR 7 (secure-boot-policy) changed: ",
			"variable SecureBoot (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"},
		{"kernel update", "ubuntu-5.11.0-1006-dbx.bin", "ubuntu-5.11.0-1008.bin", "2+9", "PCR 9 (kernel-initrd) changed: ",
			"/boot/vmlinuz-5.11.0-1008-gcp (EV_IPL) is new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			volume := m.volume()
			m.boot(c.before)
			if r := runCommand(t, m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs="+c.pcrs, volume)); r.status != 0 {
				t.Fatalf("exit status %d\n%s", r.status, r.stderr)
			}
			m.boot(c.after)
			test := []string{"test", "--unlock-tpm2-device=" + m.chip.Device(), volume}
			r := runCommand(t, m.command(test...))
			for _, want := range []string{c.moved, c.event, "cryptenroll: hint: ", "cryptenroll reseal --slot=1 --tpm2-device=" + m.chip.Device() + " " + volume} {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("the message does not say %q:\n%s", want, r.stderr)
				}
			}
			if r.status != 7 || strings.Count(r.stderr, "PCR ") != 1 {
				t.Errorf("exit status %d, want 7 and one PCR:\n%s", r.status, r.stderr)
			}
			if r := runCommand(t, m.command("reseal", "--tpm2-device="+m.chip.Device(), volume)); r.status != 0 || !strings.Contains(r.stderr, c.event) {
				t.Errorf("reseal: exit status %d\n%s", r.status, r.stderr)
			}
			if r := runCommand(t, m.command(test...)); r.status != 0 {
				t.Errorf("after the reseal: exit status %d\n%s", r.status, r.stderr)
			}
		})
	}
}

// fullVar enrols and re-seals while nothing can be written below /var: the log that
// is kept there only explains.
func (m *machine) fullVar(t *testing.T) {
	volume := m.volume()
	state := filepath.Join(m.root, "var/lib/luksmith")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=4096"); err != nil {
		testenv.NotApplicable(t, "no small file system can be mounted: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(state, syscall.MNT_DETACH) })
	m.boot("ubuntu-5.11.0-1008.bin")
	device := m.chip.Device()
	for _, args := range [][]string{
		{"--tpm2-device=" + device, "--tpm2-pcrs=7", volume}, {"test", "--unlock-tpm2-device=" + device, volume}, {"reseal", "--tpm2-device=" + device, volume},
		{"test", "--unlock-tpm2-device=" + device, volume},
	} {
		if r := runCommand(t, m.command(args...)); r.status != 0 {
			t.Errorf("%q: exit status %d\n%s", args, r.status, r.stderr)
		}
	}
	left, err := filepath.Glob(filepath.Join(state, "events", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("half a log is left: %v, %v", left, err)
	}
	// The beginnings of the digests in the token still tell.
	m.boot("ubuntu-5.11.0-1006-dbx.bin")
	r := runCommand(t, m.command("test", "--unlock-tpm2-device="+device, volume))
	if r.status != 7 || !strings.Contains(r.stderr, "variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed") {
		t.Errorf("after the update: exit status %d\n%s", r.status, r.stderr)
	}
}
