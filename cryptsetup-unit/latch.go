package main

import (
	"context"
	"sync"
)

// latch holds measurements of volume keys back until no volume needs the PCR any
// more in its present state: the volumes with luksmith-latch were enrolled with the
// literal value of a PCR that nothing was measured into.
type latch struct {
	mu      sync.Mutex
	pending int
	free    chan struct{} // closed when pending is 0
}

// newLatch is for a run with that many latched volumes.
func newLatch(volumes int) *latch {
	l := &latch{pending: volumes, free: make(chan struct{})}
	if volumes == 0 {
		close(l.free)
	}
	return l
}

// release says that a volume was unsealed or will not be. Each latched volume says
// so once.
func (l *latch) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending--; l.pending == 0 {
		close(l.free)
	}
}

// wait returns when all volumes have settled, or with the cause of ctx.
func (l *latch) wait(ctx context.Context) error {
	select {
	case <-l.free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
