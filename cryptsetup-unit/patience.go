package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"luksmith/crypttab"
	"luksmith/tokens"
)

// patiently calls a handler and ends the call when a request that it shows goes
// unanswered for the patience of the way, counted from the first time that it was
// shown. The error is [tokens.ErrTimeout] then.
func (w *tokenWay) patiently(ctx context.Context, ui tokens.UI, call func(context.Context, tokens.UI) (*tokens.Unlocked, error)) (*tokens.Unlocked, error) {
	if w.patience == 0 || w.patience == crypttab.Forever {
		return call(ctx, ui)
	}
	inner, end := context.WithCancelCause(ctx)
	defer end(nil)
	p := &impatient{UI: ui, limit: w.patience, end: end}
	defer p.stop()
	u, err := call(inner, p)
	if cause := context.Cause(inner); err != nil && errors.Is(cause, errUnanswered) {
		return nil, cause
	}
	return u, err
}

// errUnanswered ends a call whose request nobody answered.
var errUnanswered = errors.New("nobody answered")

// impatient is a UI that ends the call when the same request was shown for too long.
type impatient struct {
	tokens.UI
	limit time.Duration
	end   context.CancelCauseFunc

	mu    sync.Mutex
	text  string // of the last request
	timer *time.Timer
}

// Show passes the line on. A line that is shown once more was not answered.
func (p *impatient) Show(text string) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil || text != p.text {
		if p.timer != nil {
			p.timer.Stop()
		}
		p.text = text
		p.timer = time.AfterFunc(p.limit, func() {
			p.end(fmt.Errorf("%w: %q: %w within %v", tokens.ErrTimeout, text, errUnanswered, p.limit))
		})
	}
	return p.UI.Show(text)
}

func (p *impatient) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
}
