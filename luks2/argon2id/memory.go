package argon2id

import (
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Memory is room for computations, one after the other, that the kernel finds before
// it is needed: three tenths of the time that a gigabyte takes go into finding it. Every
// computation leaves it overwritten.
type Memory struct {
	stop      atomic.Bool
	populated chan struct{} // closed when nothing is being populated any more

	mu             sync.Mutex
	arena          arena
	busy, released bool
}

// Reserve maps the memory for costs of that size and has the kernel populate it in the
// background, as far as it comes until it is needed. [ErrNoMemory] is the error if it
// cannot be mapped. The caller says what is affordable.
func Reserve(memoryKiB, lanes int) (*Memory, error) {
	p := Params{Time: 1, MemoryKiB: memoryKiB, Lanes: lanes}
	if err := p.check(minOut); err != nil {
		return nil, err
	}
	a, err := newArena(p.blocks(), true)
	if err != nil {
		return nil, err
	}
	m := &Memory{arena: a, populated: make(chan struct{})}
	go m.populate()
	return m, nil
}

// populateStep is how much is populated between looks at whether it is needed.
const populateStep = 16 << 20

// populate is without effect on kernels before 5.14.
func (m *Memory) populate() {
	defer close(m.populated)
	runtime.LockOSThread() // which does nothing else meanwhile, and ends with a lower priority
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 10)
	for rest := m.arena.mapping; len(rest) > 0 && !m.stop.Load(); {
		n := min(len(rest), populateStep)
		if unix.Madvise(rest[:n], unix.MADV_POPULATE_WRITE) != nil {
			return
		}
		rest = rest[n:]
	}
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
	m.stop.Store(true)
	<-m.populated
	return m.arena, true
}

// giveBack ends the use of what take returned, which is overwritten.
func (m *Memory) giveBack() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = false
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

// Release gives the memory back, at the end of a computation that uses it.
func (m *Memory) Release() {
	m.stop.Store(true)
	<-m.populated
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.released && !m.busy {
		m.arena.free()
	}
	m.released = true
}
