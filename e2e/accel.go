package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// accelerator is "kvm" where a virtual processor really runs, otherwise "tcg",
// QEMU's emulation. LUKSMITH_E2E_ACCEL overrides it.
//
// That /dev/kvm is there says little: inside some virtual machines it opens, and
// the guest then never executes an instruction. So a boot sector is run that
// does nothing but end QEMU.
var accelerator = sync.OnceValue(func() string {
	if a := os.Getenv("LUKSMITH_E2E_ACCEL"); a != "" {
		return a
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return "tcg"
	} else {
		_ = f.Close()
	}
	dir, err := os.MkdirTemp("", "kvm.")
	if err != nil {
		return "tcg"
	}
	defer os.RemoveAll(dir)
	sector := make([]byte, 512)
	copy(sector, "\xb0\x10\xe6\xf4\xf4") // mov al, 0x10; out 0xf4, al; hlt
	copy(sector[510:], "\x55\xaa")
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		return "tcg"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemuProgram, "-accel", "kvm", "-nodefaults", "-display", "none",
		"-drive", "file="+disk+",format=raw,if=ide,readonly=on,snapshot=on", "-device", "isa-debug-exit,iobase=0xf4")
	_ = cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 0x10<<1|1 { // as isa-debug-exit turns 0x10 into a status
		return "kvm"
	}
	return "tcg"
})
