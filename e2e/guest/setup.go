package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// setUp makes the file systems, the environment and the devices.
func setUp() error {
	for _, m := range []struct{ fstype, target, options string }{
		{"devtmpfs", "/dev", "mode=0755"},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"devpts", "/dev/pts", "ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"securityfs", "/sys/kernel/security", ""},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/cryptsetup", "/mnt", "/root"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("/proc/self/fd", "/dev/fd"); err != nil {
		return err
	}
	os.Clearenv()
	_ = os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	_ = os.Setenv("HOME", "/root")
	_ = os.Setenv("TMPDIR", "/tmp")
	_ = os.Setenv("LUKSMITH_GUEST", "1") // testenv.NeedGuest
	if err := loadModules(); err != nil {
		return err
	}
	return mountHost()
}

// mountHost mounts what the host shares (VM.Push).
func mountHost() error {
	if err := os.MkdirAll("/host", 0o755); err != nil {
		return err
	}
	err := unix.Mount("host", "/host", "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=524288,cache=mmap")
	if err != nil {
		return fmt.Errorf("mounting /host: %w", err)
	}
	return nil
}

// loadModules loads the modules named on the kernel command line as
// e2e.modules=a,b.
func loadModules() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(string(cmdline)) {
		list, ok := strings.CutPrefix(word, "e2e.modules=")
		if !ok || list == "" {
			continue
		}
		args := append([]string{"-a"}, strings.Split(list, ",")...)
		if out, err := exec.Command("modprobe", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("modprobe %v: %w: %s", args, err, out)
		}
	}
	return nil
}
