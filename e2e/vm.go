package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"luksmith/e2e/wire"
	"luksmith/internal/test/testenv"
)

const qemuProgram = "qemu-system-x86_64"

// Config says what a guest has. The zero value is a machine with cryptsetup,
// dmsetup and busybox, without disks, TPM and udevd.
type Config struct {
	// Disks are there from the start as /dev/vda, /dev/vdb and so on. VM.AddDisk
	// adds others while the guest runs, which shared guests prefer.
	Disks []Disk
	// TPM is a folder with the state of a software TPM, such as
	// testenv.TPM.StateDir of one that has been stopped; empty: no TPM. The guest
	// changes the folder.
	TPM string
	// Programs are files with their libraries, taken from Root at the same path.
	Programs []string
	// Root is the tree that Programs come from, / if empty.
	Root string
	// Tree is a root folder of the host for VM.SwitchRoot.
	Tree string
	// Files are further files and folders: path in the guest → path on the host.
	Files map[string]string
	// Modules are loaded before the guest takes requests, besides the usual.
	Modules []string
	// KernelArgs are added to the kernel command line.
	KernelArgs []string
	// CountInstructions makes one instruction take one nanosecond of guest time,
	// so that CPU times repeat to a part in a thousand whatever the host does.
	CountInstructions bool
	// MemoryMiB is 512 if zero.
	MemoryMiB int
	// Firmware has the machine start from its first disk as machines do, and not
	// from a kernel and an initrd that QEMU loads. What is about those is of no use
	// then: Programs, Files, Modules, KernelArgs.
	Firmware *Firmware
}

// Disk is an image file of the host.
type Disk struct {
	Path       string
	ReadOnly   bool
	SectorSize int // logical and physical, 512 if zero
}

// bootTimeout is far more than a boot takes, on a busy machine without KVM too.
const bootTimeout = 3 * time.Minute

// VM is a running guest. Its methods may be called by several goroutines.
type VM struct {
	Kernel  string        // release
	Booted  time.Duration // from the kernel's start to the first request
	qemu    *exec.Cmd
	stderr  bytes.Buffer // of QEMU
	dir     string
	monitor *monitor
	exited  chan struct{}

	mu        sync.Mutex // of what follows
	port      net.Conn
	out       *json.Encoder
	processes map[int]*Process
	lastID    int
	lastDisk  int
	programs  map[string]bool // by path, see Program
	ready     chan *wire.Ready
}

// Boot starts a guest that lives until the end of the test. It takes about three
// seconds without KVM: share a guest where the test allows ([Shared]).
func Boot(t testing.TB, c Config) *VM {
	t.Helper()
	vm := boot(t, c)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the guest's console:\n%s", vm.console())
		}
		vm.stop()
	})
	return vm
}

// needGuests skips the test where no guest can be booted.
func needGuests(t testing.TB) *kernel {
	t.Helper()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, qemuProgram)
	return findKernel(t)
}

func boot(t testing.TB, c Config) *VM {
	t.Helper()
	k := needGuests(t)
	go accelerator() // may take seconds, as building the initrd does
	dir, err := os.MkdirTemp("", "e2e.")
	if err != nil {
		t.Fatal(err)
	}
	vm := &VM{dir: dir, processes: map[int]*Process{}, programs: map[string]bool{}, ready: make(chan *wire.Ready, 1)}
	args, err := vm.prepare(t, k, &c)
	if err == nil {
		err = vm.start(t, &c, args)
	}
	if err != nil {
		console := vm.console()
		vm.stop()
		t.Fatalf("booting the guest: %v\n%s%s", err, vm.stderr.String(), console)
	}
	return vm
}

// prepare makes the files of the guest and returns QEMU's command line.
func (vm *VM) prepare(t testing.TB, k *kernel, c *Config) ([]string, error) {
	if err := os.Mkdir(vm.shareFolder(), 0o755); err != nil {
		return nil, err
	}
	if c.Firmware != nil {
		return c.firmwareArguments(vm.dir), nil
	}
	size, err := vm.writeInitrd(t, k, c)
	if err != nil {
		return nil, err
	}
	return c.arguments(k, vm.dir, size)
}

// writeInitrd puts the common archive and one with this guest's files together.
func (vm *VM) writeInitrd(t testing.TB, k *kernel, c *Config) (size int, err error) {
	base, err := os.ReadFile(baseInitrd(t, k))
	if err != nil {
		return 0, err
	}
	a := newArchive()
	root := tree(c.Root)
	if root == "" {
		root = "/"
	}
	if err := a.addProgram(root, c.Programs...); err != nil {
		return 0, err
	}
	for name, host := range c.Files {
		if err := a.copyFile(strings.TrimPrefix(merged(name), "/"), host); err != nil {
			return 0, err
		}
	}
	all := append(base, a.bytes()...)
	return len(all), os.WriteFile(vm.initrd(), all, 0o600)
}

func (vm *VM) initrd() string { return filepath.Join(vm.dir, "initrd") }

// start runs QEMU and waits until the guest takes requests.
func (vm *VM) start(t testing.TB, c *Config, args []string) error {
	qmp, err := net.Listen("unix", filepath.Join(vm.dir, "qmp"))
	if err != nil {
		return err
	}
	defer qmp.Close()
	port, err := net.Listen("unix", filepath.Join(vm.dir, "port"))
	if err != nil {
		return err
	}
	defer port.Close()
	if c.TPM != "" {
		if err := vm.startTPM(t, c.TPM); err != nil {
			return err
		}
	}
	vm.qemu = exec.Command(qemuProgram, args...)
	vm.qemu.Stderr = &vm.stderr
	if vm.exited, err = startWithUs(vm.qemu); err != nil {
		return err
	}
	go func() { <-vm.exited; _ = qmp.Close(); _ = port.Close() }()
	conn, err := qmp.Accept()
	if err != nil {
		return fmt.Errorf("QEMU does not start: %w", err)
	}
	if vm.monitor, err = newMonitor(conn); err != nil {
		return err
	}
	conn, err = port.Accept()
	if err != nil {
		return err
	}
	vm.port, vm.out = conn, json.NewEncoder(conn)
	go vm.read(json.NewDecoder(conn))
	return vm.waitReady()
}

func (vm *VM) waitReady() error {
	select {
	case r := <-vm.ready:
		vm.Kernel, vm.Booted = r.Kernel, r.Uptime
		return nil
	case <-vm.exited:
		return errors.New("the guest ended before it was ready")
	case <-time.After(bootTimeout):
		return fmt.Errorf("the guest was not ready after %v", bootTimeout)
	}
}

// read passes what the guest sends to the processes, until QEMU ends.
func (vm *VM) read(in *json.Decoder) {
	for {
		var r wire.Reply
		if in.Decode(&r) != nil {
			break
		}
		if r.Ready != nil {
			vm.ready <- r.Ready
			continue
		}
		if p := vm.process(r.ID); p != nil {
			p.receive(r)
		}
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	for _, p := range vm.processes {
		p.receive(wire.Reply{Error: "the guest is gone"})
	}
}

func (vm *VM) process(id int) *Process {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.processes[id]
}

func (vm *VM) send(r wire.Request) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.out.Encode(r)
}

// Restart has the guest end by itself, as a machine that is restarted does, and waits
// until QEMU has ended. What is mounted has to be unmounted before.
func (vm *VM) Restart(t testing.TB) {
	t.Helper()
	_ = vm.port.Close()
	select {
	case <-vm.exited:
	case <-time.After(bootTimeout):
		t.Fatal("the guest does not restart")
	}
}

// stop ends QEMU and removes its folder.
func (vm *VM) stop() {
	if vm.exited != nil && vm.qemu.Process != nil {
		_ = vm.qemu.Process.Kill()
		<-vm.exited
	}
	_ = os.RemoveAll(vm.dir)
}
