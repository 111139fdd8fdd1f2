package helper

import (
	"fmt"

	"luksmith/luks2/secret"

	"golang.org/x/sys/unix"
)

// Limits of a helper, whose C libraries and modules are not trusted with the
// memory of the machine. The Go runtime reserves 1.5 GiB of addresses without
// using them, so the second cannot be as tight as the first.
const (
	maxData      = 1 << 30 // private memory that can be written: RLIMIT_DATA
	maxAddresses = 4 << 30 // all mappings, shared memory too: RLIMIT_AS
	maxFile      = 1 << 30 // a file, which may be in memory: RLIMIT_FSIZE
)

// Confine is what a helper program calls first: it keeps its memory from other programs
// ([secret.Harden]) and limits it, and that of each program that it starts. Limits that
// are tighter already stay.
func Confine() error {
	if err := secret.Harden(); err != nil {
		return err
	}
	for resource, limit := range map[int]uint64{unix.RLIMIT_DATA: maxData, unix.RLIMIT_AS: maxAddresses, unix.RLIMIT_FSIZE: maxFile} {
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return fmt.Errorf("reading a limit: %w", err)
		}
		now.Cur, now.Max = min(now.Cur, limit), min(now.Max, limit)
		if err := unix.Setrlimit(resource, &now); err != nil {
			return fmt.Errorf("limiting memory and files: %w", err)
		}
	}
	return nil
}
