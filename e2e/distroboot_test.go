package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// machine is a booting [distro] and its serial console.
type machine struct {
	t       *testing.T
	began   time.Time
	console net.Conn
	stop    func() // switches it off
	pid     int    // of QEMU

	mu   sync.Mutex
	text string
	seen int
	gone bool
}

// machineConfig says what a machine boots.
type machineConfig struct {
	kernel, initrd string
	firmware       []string // EFI's program and variables, in place of kernel and initrd
	disks          []string
	written        bool   // what the machine writes stays on the disks
	tpm            string // state, copied; empty: none
	args           string // kernel command line
}

// controls are the escape sequences of a terminal, and what else hides text.
var controls = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r|\x1b[=>78c]|\x1b\][^\x07]*\x07`)

// bootMachine starts QEMU, which ends with the test.
func bootMachine(t *testing.T, c machineConfig) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "distro.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	args := []string{
		"-M", "q35", "-accel", accelerator(), "-cpu", "max", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-device", "virtio-rng-pci", "-chardev", "socket,id=con,path=" + filepath.Join(dir, "tty"), "-serial", "chardev:con",
	}
	if c.firmware != nil {
		args = append(args, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+c.firmware[0], "-drive", "if=pflash,format=raw,unit=1,file="+c.firmware[1])
	} else {
		args = append(args, "-kernel", c.kernel, "-initrd", c.initrd,
			"-append", "console=ttyS0 tsc=reliable no_timer_check mitigations=off nokaslr random.trust_cpu=on "+c.args)
	}
	snapshot := "on"
	if c.written {
		snapshot = "off"
	}
	for i, disk := range c.disks {
		args = append(args, "-drive", fmt.Sprintf("if=none,id=d%d,format=raw,cache=unsafe,snapshot=%s,file=%s", i, snapshot, disk),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=disk%d", i, i))
	}
	if c.tpm != "" {
		testenv.Run(t, "cp", "-a", c.tpm, filepath.Join(dir, "state"))
		vm := &VM{dir: dir}
		if err := vm.startTPM(t, filepath.Join(dir, "state")); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-chardev", "socket,id=tpm,path="+filepath.Join(dir, "tpm"), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0")
	}
	return startMachine(t, filepath.Join(dir, "tty"), args)
}

func startMachine(t *testing.T, tty string, args []string) *machine {
	t.Helper()
	l, err := net.Listen("unix", tty)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(qemuProgram, args...)
	cmd.Stderr = os.Stderr
	m := &machine{t: t, began: time.Now()}
	exited, err := startWithUs(cmd)
	if err != nil {
		t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	m.stop = func() { _ = cmd.Process.Kill(); <-exited }
	t.Cleanup(m.stop)
	go func() { <-exited; _ = l.Close() }()
	if m.console, err = l.Accept(); err != nil {
		t.Fatalf("QEMU does not start: %v", err)
	}
	go m.read()
	return m
}

func (m *machine) read() {
	b := make([]byte, 64<<10)
	for {
		n, err := m.console.Read(b)
		m.mu.Lock()
		m.text = controls.ReplaceAllString(m.text+string(b[:n]), "")
		m.gone = m.gone || err != nil
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// await waits for a text that was not seen yet, and returns when it came and what it
// was.
func (m *machine) await(pattern string, limit time.Duration) (match string, after time.Duration) {
	m.t.Helper()
	want := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		match, gone := m.find(want)
		switch {
		case match != "":
			return match, time.Since(m.began)
		case gone || time.Now().After(deadline):
			m.t.Fatalf("not on the console after %v: %s\n%s", time.Since(m.began).Round(time.Second), pattern, m.end())
		}
	}
}

func (m *machine) find(want *regexp.Regexp) (match string, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := want.FindStringIndex(m.text[min(m.seen, len(m.text)):])
	if at == nil {
		return "", m.gone
	}
	start := m.seen
	m.seen += at[1]
	return m.text[start+at[0] : m.seen], false
}

// cpu is the processor time that QEMU has taken.
func (m *machine) cpu() time.Duration {
	m.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		m.t.Fatal(err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks time.Duration
	for _, field := range fields[11:13] { // utime and stime, in 1/100 s
		n, err := strconv.Atoi(field)
		if err != nil {
			m.t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// awaitEnd waits until QEMU has ended, which is when a machine is off.
func (m *machine) awaitEnd(limit time.Duration) {
	m.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		m.mu.Lock()
		gone := m.gone
		m.mu.Unlock()
		if gone {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("still on after %v\n%s", time.Since(m.began).Round(time.Second), m.end())
		}
	}
}

// end is what the console showed last.
func (m *machine) end() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text[max(0, len(m.text)-6000):]
}

// enter types a line. Programs throw away what comes in the moment in which they ask.
func (m *machine) enter(text string) {
	time.Sleep(2 * time.Second)
	if _, err := m.console.Write([]byte(text + "\r")); err != nil {
		m.t.Fatal(err)
	}
}
