package luks2

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"luksmith/luks2/argon2id"
)

// Workspace is the memory of the memory-hard KDFs of all Devices that share it by
// OpenOptions.Workspace, so that several volumes with one passphrase do not each have
// the kernel find a gigabyte: what served one keyslot serves the next one, overwritten.
// As many KDFs run at once as have a processor for each lane. It is safe for concurrent
// use.
//
// Memory that is there already needs nobody's leave. More of it is asked of the machine
// for one KDF at a time, under the lock of libcryptsetup, and for a second one beside
// the first only if three times as much is available.
type Workspace struct {
	processors int
	enough     func(needKiB int) error // enoughMemory, or what a test says

	mu      sync.Mutex
	idle    []*argon2id.Memory
	holds   int           // that keep what is idle
	running int           // KDFs
	lanes   int           // of them
	growing bool          // one of them asks the machine for more
	full    bool          // which had none beside that of those that run
	changed chan struct{} // closed and replaced when one has ended
}

// NewWorkspace has no memory yet.
func NewWorkspace() *Workspace {
	return &Workspace{processors: runtime.GOMAXPROCS(0), enough: enoughMemory, changed: make(chan struct{})}
}

// Hold keeps the memory of KDFs that have ended for the next one, until release. It may
// be called more than once.
func (w *Workspace) Hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds++
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.holds--; w.holds == 0 {
			w.drop()
		}
	})
}

// drop gives what is idle back to the machine. The lock is held.
func (w *Workspace) drop() {
	for _, m := range w.idle {
		m.Release()
	}
	w.idle = nil
}

// seat is the place of one KDF that may run.
type seat struct {
	memory *argon2id.Memory
	lanes  int
	grows  bool
	unlock func() // of the lock for much memory, nil without it
}

// use runs a KDF in memory of the workspace. It waits for its turn, or until ctx ends.
func (w *Workspace) use(ctx context.Context, k *KDF, run func(*argon2id.Memory) error) error {
	defer w.Hold()()
	for {
		s, changed := w.sit(k)
		if s != nil {
			if err := w.serve(ctx, k, s, run); !w.leave(s, err) {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sit gives a KDF its place, or what is closed when there may be one.
func (w *Workspace) sit(k *KDF) (*seat, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &seat{lanes: min(k.Parallel, w.processors)}
	if w.running > 0 && w.lanes+s.lanes > w.processors {
		return nil, w.changed
	}
	at, missing := w.best(k)
	if s.grows = missing > 0; s.grows {
		if w.growing || w.running > 0 && (w.full || w.enough(reserveMargin*missing) != nil) {
			return nil, w.changed
		}
		w.growing = true
	}
	if s.memory = w.take(at); at < 0 {
		w.drop() // which is too small
	}
	w.running, w.lanes = w.running+1, w.lanes+s.lanes
	return s, nil
}

// best is the idle memory of which the least is missing, -1 for none. The lock is held.
func (w *Workspace) best(k *KDF) (at, missing int) {
	at, missing = -1, k.MemoryKiB
	for i, m := range w.idle {
		if !m.Fits(k.MemoryKiB, k.Parallel) {
			continue
		}
		if n := m.Missing(k.MemoryKiB, k.Parallel); at < 0 || n < missing {
			at, missing = i, n
		}
	}
	return at, missing
}

// take takes one of what is idle, nil for -1. The lock is held.
func (w *Workspace) take(at int) *argon2id.Memory {
	if at < 0 {
		return nil
	}
	m := w.idle[at]
	w.idle = append(w.idle[:at], w.idle[at+1:]...)
	return m
}

// missing is what has still to be asked of the machine, after a wait for the lock:
// others may have left memory meanwhile.
func (w *Workspace) missing(k *KDF, s *seat) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.memory == nil {
		at, _ := w.best(k)
		s.memory = w.take(at)
	}
	if s.memory == nil {
		return k.MemoryKiB
	}
	return s.memory.Missing(k.MemoryKiB, k.Parallel)
}

// serve runs the KDF at its place.
func (w *Workspace) serve(ctx context.Context, k *KDF, s *seat, run func(*argon2id.Memory) error) (err error) {
	if s.grows {
		if s.unlock, err = memoryHardLock(ctx); err != nil {
			return err
		}
		if err := w.enough(w.missing(k, s)); err != nil {
			return err
		}
	}
	if s.memory == nil {
		if s.memory, err = argon2id.NewMemory(k.MemoryKiB, k.Parallel); err != nil {
			return err
		}
	}
	return run(s.memory)
}

// leave ends the use of a place. It reports whether the KDF has to be tried again, when
// one of those has ended beside which there was no memory for it.
func (w *Workspace) leave(s *seat, err error) (again bool) {
	if s.unlock != nil {
		s.unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.memory != nil {
		w.idle = append(w.idle, s.memory)
	}
	if s.grows {
		w.growing = false
	}
	w.running, w.lanes = w.running-1, w.lanes-s.lanes
	w.full = errors.Is(err, ErrNoMemory) && w.running > 0
	close(w.changed)
	w.changed = make(chan struct{})
	return w.full
}
