package argon2id

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockWords is the size of a block: 1 KiB (RFC 9106 §3.1).
const (
	blockWords = 128
	blockSize  = 8 * blockWords
)

// block is in the byte order of the machine.
type block [blockWords]uint64

// arena is a mapping of zeros for blocks.
type arena struct {
	mapping []byte
	blocks  []block // aligned to 1 KiB at least
}

// hugePage is the size of huge pages on amd64, and on arm64 with pages of 4 KiB.
const hugePage = 2 << 20

// newArena reserves memory, which the kernel hands out as it is written to.
// Without huge pages nearly every reference to another block misses the TLB.
func newArena(n int, huge bool) (arena, error) {
	size := uint64(n) * blockSize
	if size > math.MaxInt-hugePage {
		return arena{}, ErrNoMemory
	}
	align := 1
	if size >= hugePage {
		align = hugePage // kernels before 6.7 do not do it
	}
	m, err := unix.Mmap(-1, 0, int(size)+align-1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == unix.ENOMEM || err == unix.EAGAIN {
		return arena{}, ErrNoMemory
	}
	if err != nil {
		return arena{}, fmt.Errorf("mapping memory: %w", err)
	}
	// All are best effort: old kernels may lack an advice.
	if huge {
		_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
	} else {
		_ = unix.Madvise(m, unix.MADV_NOHUGEPAGE)
	}
	_ = unix.Madvise(m, unix.MADV_DONTDUMP)
	_ = unix.Madvise(m, unix.MADV_DONTFORK)
	start := unsafe.Pointer(unsafe.SliceData(m))
	skip := int(-uintptr(start) & uintptr(align-1))
	return arena{m, unsafe.Slice((*block)(unsafe.Add(start, skip)), n)}, nil
}

// free gives the memory back. Its user has overwritten it.
func (a *arena) free() { _ = unix.Munmap(a.mapping) }
