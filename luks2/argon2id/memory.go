package argon2id

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory is room for computations, one after the other, that the kernel finds before
// it is needed: three tenths of the time that a gigabyte takes go into finding it, and
// more where a virtual machine waits for its host. Every computation leaves it
// overwritten.
type Memory struct {
	stop      atomic.Bool
	populated chan struct{} // closed when nothing is being populated any more

	mu             sync.Mutex
	arena          arena
	found          int // blocks that are there, from the first on
	busy, released bool
}

// NewMemory maps the memory for costs of that size, which the kernel finds when it is
// written to, or before by [Memory.Populate]. [ErrNoMemory] is the error if it cannot be
// mapped. The caller says what is affordable.
func NewMemory(memoryKiB, lanes int) (*Memory, error) {
	p := Params{Time: 1, MemoryKiB: memoryKiB, Lanes: lanes}
	if err := p.check(minOut); err != nil {
		return nil, err
	}
	a, err := newArena(p.blocks(), true)
	if err != nil {
		return nil, err
	}
	m := &Memory{arena: a, populated: make(chan struct{})}
	close(m.populated)
	return m, nil
}

// populateStep is how many blocks are populated between looks at whether they are
// needed.
const populateStep = 16 << 10

// Populate has the kernel find the memory in the background, as far as it comes until
// it is needed or more, which is asked before every 16 MiB, returns false. It is called
// once, before anything else. Kernels before 5.14 do not do it.
func (m *Memory) Populate(more func() bool) {
	m.populated = make(chan struct{})
	go m.populate(more)
}

func (m *Memory) populate(more func() bool) {
	defer close(m.populated)
	runtime.LockOSThread() // which does nothing else meanwhile, and ends with a lower priority
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 10)
	for rest := m.arena.blocks; len(rest) > 0 && !m.stop.Load() && more(); {
		n := min(len(rest), populateStep)
		if unix.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&rest[0])), n*blockSize), unix.MADV_POPULATE_WRITE) != nil {
			return
		}
		m.found += n
		rest = rest[n:]
	}
}

// settle ends populating.
func (m *Memory) settle() {
	m.stop.Store(true)
	<-m.populated
}

// take returns the memory if it has room for n blocks and is free; else false.
func (m *Memory) take(n int) (arena, bool) {
	if m == nil {
		return arena{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy || m.released || n > len(m.arena.blocks) {
		return arena{}, false
	}
	m.busy = true
	m.settle()
	return m.arena, true
}

// giveBack ends the use of what take returned, which is overwritten. The first n
// blocks were written to.
func (m *Memory) giveBack(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy, m.found = false, max(m.found, n)
	if m.released {
		m.arena.free()
	}
}

// Fits reports whether a computation of that size would use it now.
func (m *Memory) Fits(memoryKiB, lanes int) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Params{Time: 1, MemoryKiB: memoryKiB, Lanes: lanes}
	return !m.busy && !m.released && p.check(minOut) == nil && p.blocks() <= len(m.arena.blocks)
}

// Missing ends populating and returns how many KiB the kernel has still to find for a
// computation of that size.
func (m *Memory) Missing(memoryKiB, lanes int) int {
	m.settle()
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Params{MemoryKiB: memoryKiB, Lanes: lanes}
	return max(0, p.blocks()-m.found)
}

// Release gives the memory back, at the end of a computation that uses it.
func (m *Memory) Release() {
	m.settle()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.released && !m.busy {
		m.arena.free()
	}
	m.released = true
}
