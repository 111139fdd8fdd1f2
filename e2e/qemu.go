package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"luksmith/e2e/wire"
)

// initrdAddress is where the initrd lies in the guest's memory. QEMU 7.2 puts
// -initrd of a PVH kernel so high that it overwrites the ACPI tables when a TPM
// adds its event log; so it is loaded as plain data, and the kernel is told where
// it is and to keep off.
const initrdAddress = 128 << 20

// arguments is QEMU's command line.
func (c *Config) arguments(k *kernel, dir string, initrdSize int) ([]string, error) {
	modules, err := k.index.loadable(append(bootModules(), c.Modules...))
	if err != nil {
		return nil, err
	}
	args := append(c.machineArguments(dir, "q35", "tpm-tis"),
		"-kernel", k.image, "-append", c.kernelArguments(modules, initrdSize),
		"-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", filepath.Join(dir, "initrd"), initrdAddress),
		"-device", "virtio-scsi-pci,id=scsi",
		"-device", "qemu-xhci,id=usb,p2=8,p3=8")
	if c.CountInstructions {
		args = append(args, "-icount", "shift=0")
	}
	return append(args, c.diskArguments()...), nil
}

// machineArguments are those of every guest, but for what it starts from.
func (c *Config) machineArguments(dir, machine, tpm string) []string {
	memory := c.MemoryMiB
	if memory == 0 {
		memory = 512
	}
	args := []string{
		"-M", machine, "-accel", accelerator(), "-cpu", "max", "-m", fmt.Sprint(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-chardev", "socket,id=console,server=on,wait=off,path=" + filepath.Join(dir, "tty") + ",logfile=" + filepath.Join(dir, "console"), "-serial", "chardev:console",
		"-qmp", "unix:" + filepath.Join(dir, "qmp"),
		"-device", "virtio-serial-pci", "-chardev", "socket,id=port,path=" + filepath.Join(dir, "port"),
		"-device", "virtserialport,chardev=port,name=" + wire.PortName,
		"-device", "virtio-rng-pci",
		"-virtfs", "local,mount_tag=host,security_model=none,readonly=on,path=" + filepath.Join(dir, "share"),
	}
	if c.Tree != "" {
		args = append(args, "-virtfs", "local,mount_tag=tree,security_model=none,readonly=on,multidevs=remap,path="+c.Tree)
	}
	if c.TPM != "" {
		args = append(args, "-chardev", "socket,id=tpm,path="+filepath.Join(dir, "tpm"),
			"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", tpm+",tpmdev=tpm0")
	}
	return args
}

func (c *Config) diskArguments() (args []string) {
	for i, d := range c.Disks {
		args = append(args, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,cache=unsafe,readonly=%s,file=%s", i, onOff(d.ReadOnly), d.Path),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d%s", i, sectorSizeArgs(d.SectorSize)))
	}
	return args
}

// kernelArguments leaves out what costs time in an emulated machine.
func (c *Config) kernelArguments(modules []string, initrdSize int) string {
	args := []string{
		"console=ttyS0", "quiet", "panic=-1", "tsc=reliable", "no_timer_check", "mitigations=off", "nokaslr", "random.trust_cpu=on",
		fmt.Sprintf("initrdmem=%#x,%d", initrdAddress, initrdSize), fmt.Sprintf("memmap=%dM$%#x", initrdSize>>20+1, initrdAddress),
		"e2e.modules=" + strings.Join(modules, ","),
	}
	return strings.Join(append(args, c.KernelArgs...), " ")
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func sectorSizeArgs(size int) string {
	if size == 0 {
		return ""
	}
	return fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", size, size)
}

// startWithUs starts a program that the kernel kills when the test binary ends,
// however it ends, for example by go test's own time limit. The channel is closed
// when the program has ended.
func startWithUs(cmd *exec.Cmd) (exited chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error), make(chan struct{})
	go func() {
		// The signal comes when the thread ends that started the program, so that
		// one has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}()
	return exited, <-started
}
