package cli

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// lockedTrial is more than all secrets of a run together.
const lockedTrial = 256 << 10

// Protect keeps the secrets of the process from core files, debuggers and swap.
// Commands call it before anything else. It returns advice for the person when
// secrets might reach a swap device all the same; err means that the process
// should not go on.
func Protect() (advice []string, err error) {
	if err := secret.Harden(); err != nil {
		return nil, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return nil, fmt.Errorf("reading the limit on locked memory: %w", err)
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) // the old one may suffice
	}
	if swapping() && !canLock() {
		advice = append(advice, fmt.Sprintf("secrets could be written to swap: only %d KiB of memory may be locked (raise it with `ulimit -l 1024`, or run as root)",
			limit.Cur>>10))
	}
	return advice, nil
}

// swapping reports whether there is a swap device or file.
func swapping() bool {
	// Without os.File, which would start the runtime's poller in each command.
	fd, err := unix.Open("/proc/swaps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var swaps [512]byte
	n, err := unix.Read(fd, swaps[:])
	return err == nil && bytes.Count(swaps[:n], []byte("\n")) > 1 // the first line is a header
}

func canLock() bool {
	m, err := unix.Mmap(-1, 0, lockedTrial, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(m) }()
	return unix.Mlock(m) == nil
}
