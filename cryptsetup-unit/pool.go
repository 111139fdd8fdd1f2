package main

import (
	"context"
	"errors"
	"sync"

	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// pool shares passphrases that opened a volume with the other volumes of the same
// run, so that several with one passphrase are asked for once.
type pool struct {
	mu      sync.Mutex
	list    []pooled
	changed chan struct{} // closed and replaced when list grows
	// tried has the number of passphrases that were tried, by volume; allTried where no
	// more will be, none for one that is open. moved is closed and replaced when it changes.
	tried map[string]int
	moved chan struct{}
	// hold keeps the memory in which a passphrase was tried for the other volumes, until
	// release, which is nil while there are none to try it.
	hold    func() (release func())
	release func()
}

const allTried = 1 << 30

// pooled is a passphrase and the volume that it opened.
type pooled struct {
	secret.Secret
	volume string
}

func newPool(hold func() (release func())) *pool {
	return &pool{hold: hold, changed: make(chan struct{}), tried: map[string]int{}, moved: make(chan struct{})}
}

// mark notes that a volume was tried with the first n passphrases.
func (p *pool) mark(volume string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried[volume] = n
	p.keep()
	close(p.moved)
	p.moved = make(chan struct{})
}

// opened notes that a passphrase opened a volume, which needs no more of them, and no
// question: who waits in settled goes on waiting until the end of the contest stops it.
func (p *pool) opened(volume string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tried, volume)
	p.keep()
}

// keep holds the memory while there are volumes to try what opened another one. The lock
// is held.
func (p *pool) keep() {
	busy := false
	for _, n := range p.tried {
		busy = busy || n < len(p.list)
	}
	switch {
	case busy && p.release == nil:
		p.release = p.hold()
	case !busy && p.release != nil:
		p.release()
		p.release = nil
	}
}

// settled waits until a volume was tried with all passphrases that opened others. The
// error is the cause of ctx.
func (p *pool) settled(ctx context.Context, volume string) error {
	for {
		p.mu.Lock()
		done, moved := p.tried[volume] >= len(p.list), p.moved
		p.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// add keeps a copy of a passphrase that opened a volume.
func (p *pool) add(volume string, passphrase secret.Secret) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list {
		if s.Equal(passphrase) {
			return
		}
	}
	p.list = append(p.list, pooled{passphrase.Clone(), volume})
	p.keep()
	close(p.changed)
	p.changed = make(chan struct{})
}

// since returns the passphrases of other volumes from number n on, the number to go on
// with, and a channel that is closed when there are more. They are copies, which the
// caller wipes: wipe must not take a passphrase away from under a KDF that a contest
// left behind.
func (p *pool) since(n int, volume string) (fresh []secret.Secret, next int, more <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list[min(n, len(p.list)):] {
		if s.volume != volume { // its own is about to win another way
			fresh = append(fresh, s.Clone())
		}
	}
	return fresh, len(p.list), p.changed
}

// wipe empties the pool at the end of the run.
func (p *pool) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list {
		s.Wipe()
	}
	p.list = nil
}

// poolWay opens a volume with what opened another one. It goes on until a
// passphrase fits or it is stopped.
type poolWay struct {
	pool   *pool
	volume string
	try    tryFunc
}

func (poolWay) Name() string { return "passphrase of another volume" }

func (w poolWay) Open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	w.pool.mark(w.volume, 0)
	f, err := w.open(ctx, busy)
	if f != nil {
		w.pool.opened(w.volume) // and the question is withdrawn before it is seen
	} else {
		w.pool.mark(w.volume, allTried)
	}
	return f, err
}

func (w poolWay) open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	for n := 0; ; {
		fresh, next, more := w.pool.since(n, w.volume)
		n = next
		if f, err := w.tryAll(ctx, fresh); f != nil || err != nil {
			return f, err
		}
		w.pool.mark(w.volume, n)
		busy(false)
		select {
		case <-more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryAll tries passphrases, and wipes them. That none fits is not an error.
func (w poolWay) tryAll(ctx context.Context, list []secret.Secret) (*contest.Found, error) {
	defer secret.WipeAll(list)
	for _, passphrase := range list {
		f, err := w.try(ctx, passphrase, nil)
		if err == nil {
			f.By = w.Name()
			return f, nil
		}
		if !errors.Is(err, luks2.ErrNoKey) {
			return nil, err
		}
	}
	return nil, nil
}
