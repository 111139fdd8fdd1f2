package main

import (
	"context"
	"errors"
	"sync"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// pool shares passphrases that opened a volume with the other volumes of the same
// run, so that several with one passphrase are asked for once.
type pool struct {
	mu      sync.Mutex
	list    []secret.Secret
	changed chan struct{} // closed and replaced when list grows
}

func newPool() *pool { return &pool{changed: make(chan struct{})} }

// add keeps a copy of a passphrase that was right.
func (p *pool) add(passphrase secret.Secret) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list {
		if s.Equal(passphrase) {
			return
		}
	}
	p.list = append(p.list, passphrase.Clone())
	close(p.changed)
	p.changed = make(chan struct{})
}

// since returns the passphrases from number n on, and a channel that is closed when
// there are more. They are copies, which the caller wipes: wipe must not take a
// passphrase away from under a KDF that a contest left behind.
func (p *pool) since(n int) (fresh []secret.Secret, more <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.list[min(n, len(p.list)):] {
		fresh = append(fresh, s.Clone())
	}
	return fresh, p.changed
}

// wipe empties the pool at the end of the run.
func (p *pool) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	secret.WipeAll(p.list)
	p.list = nil
}

// poolWay opens a volume with what opened another one. It goes on until a
// passphrase fits or it is stopped.
type poolWay struct {
	pool *pool
	try  tryFunc
}

func (poolWay) name() string { return "passphrase of another volume" }

func (w poolWay) open(ctx context.Context, busy func(bool)) (*found, error) {
	for n := 0; ; {
		fresh, more := w.pool.since(n)
		n += len(fresh)
		f, err := w.tryAll(ctx, fresh)
		if f != nil || err != nil {
			return f, err
		}
		busy(false)
		select {
		case <-more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryAll tries passphrases, and wipes them. That none fits is no error.
func (w poolWay) tryAll(ctx context.Context, list []secret.Secret) (*found, error) {
	defer secret.WipeAll(list)
	for _, passphrase := range list {
		f, err := w.try(ctx, passphrase, nil)
		if err == nil {
			f.by = w.name()
			return f, nil
		}
		if !errors.Is(err, luks2.ErrNoKey) {
			return nil, err
		}
	}
	return nil, nil
}
