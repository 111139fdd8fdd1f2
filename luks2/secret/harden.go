package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden makes the process keep its memory to itself: no core file
// (RLIMIT_CORE 0) and no ptrace or /proc/PID/mem by other processes of the same
// user (PR_SET_DUMPABLE 0). Commands and helper programs call it first thing.
// The flag is lost at execve, so every program sets its own.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setting the core file limit: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("marking the process as not dumpable: %w", err)
	}
	return nil
}
