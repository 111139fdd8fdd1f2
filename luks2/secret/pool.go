package secret

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pool keeps the memory of secrets that were wiped, locked as it is, for those to
// come. Five system calls make and release the memory of one, and have the kernel find
// and clear its pages: for the dozens of keys that a session with a TPM goes through,
// or the key areas of keyslots that are tried in turn, that is more work than what is
// done with them. No two secrets are in one page.
type pool struct {
	mu   sync.Mutex
	free [][]byte // overwritten; what was given back first is taken first
	kept int      // bytes of free
}

// memory is where all secrets of the process are.
var memory pool

const (
	maxKept    = 1 << 20 // more is given back to the kernel
	blockPages = 8       // mapped at a time when a page is wanted
)

// take returns memory of that size, whole pages, all zeros.
func (p *pool) take(size int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, m := range p.free {
		if len(m) == size {
			p.free = append(p.free[:i], p.free[i+1:]...)
			p.kept -= size
			return m
		}
	}
	page := unix.Getpagesize()
	if size > page {
		return locked(size)
	}
	block := locked(blockPages * page)
	for rest := block[page:]; len(rest) > 0; rest = rest[page:] {
		p.free = append(p.free, rest[:page:page])
		p.kept += page
	}
	return block[:page:page]
}

// give overwrites memory and keeps it, or returns it to the kernel.
func (p *pool) give(m []byte) {
	Wipe(m)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept+len(m) > maxKept {
		_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m)), uintptr(len(m)))
		return
	}
	p.free = append(p.free, m)
	p.kept += len(m)
}

// locked maps memory that is not swapped, dumped or inherited. It panics when the
// kernel has none left.
func locked(size int) []byte {
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Errorf("secret: mapping %d bytes: %w", size, err))
	}
	m := unsafe.Slice((*byte)(at), size)
	// All three are best effort: RLIMIT_MEMLOCK may be small and old kernels may
	// lack an advice. Swap and dumps are then held off by Harden alone.
	if unix.Mlock(m) != nil && size <= blockPages*unix.Getpagesize() {
		for i := 0; i < size; i += unix.Getpagesize() { // as many as the limit allows
			_ = unix.Mlock(m[i : i+1])
		}
	}
	_ = unix.Madvise(m, unix.MADV_DONTDUMP)
	_ = unix.Madvise(m, unix.MADV_DONTFORK)
	return m
}
