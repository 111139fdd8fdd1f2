package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// way is one way to a volume key: a token type, a key file, a person.
type way interface {
	// name is for messages and the report: "key file /k".
	name() string
	// open returns the key, which its caller wipes, or why there is none. While it
	// only waits for something to appear it says so with busy(false). It returns
	// soon after ctx ends.
	open(ctx context.Context, busy func(bool)) (*found, error)
}

// found is a volume key and where it came from.
type found struct {
	key   secret.Secret
	slot  int // keyslot, -1 if unknown
	token int // number of the token, -1 without one
	by    string
}

// failure is a way that did not open the volume.
type failure struct {
	way  string
	err  error
	took time.Duration
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %v", f.way, f.err) }
func (f *failure) Unwrap() error { return f.err }

// errEnough is the cause with which a contest ends the ways that are left.
var errEnough = errors.New("the volume key was found another way")

// errNoPatience ends ways that still wait when the last person gave up.
var errNoPatience = errors.New("no longer waited for, because no further answer is accepted")

// errGaveUp is wrapped by the prompt after the last try: nobody will answer any
// more, so nothing is waited for either, but what is in progress may finish.
var errGaveUp = errors.New("too many wrong answers")

// contest has several ways look for the volume key. They begin in their order, each
// when those before it have failed or only wait for something; after three seconds
// all the others begin. The prompt is there from the start but hidden; it appears
// by the same rule, or on a key press. The first key wins.
type contest struct {
	ways []way
	// prompt is nil if nobody may be asked. appear is closed when it may be seen.
	prompt func(appear <-chan struct{}) way
	// background ways begin first. They hold nothing up, and when the others have
	// ended so have they.
	background []way
	// patience is how long ways wait for the ones before them, and the prompt for
	// all of them.
	patience time.Duration
	// onFailure, if not nil, is called for each failure when it happens, except
	// that of the prompt.
	onFailure func(*failure)
	// settle is how long to wait after the decision for the other ways to end.
	settle time.Duration
}

const (
	promptPatience = 3 * time.Second
	settleTime     = 500 * time.Millisecond
)

// runner is one way in a running contest.
type runner struct {
	way
	stop    context.CancelCauseFunc
	began   time.Time
	busy    bool
	done    bool
	waiting bool // said busy(false)
	aside   bool // a background way
}

// contestEvent is what a way tells the contest.
type contestEvent struct {
	of   *runner
	busy bool
	// ended, and the result
	ended bool
	found *found
	err   error
}

// arena is the state of one run. Only the goroutine of run touches it.
type arena struct {
	*contest
	ctx      context.Context
	events   chan contestEvent
	over     chan struct{} // closed when nobody receives events any more
	runners  []*runner
	begun    int // of ways
	prompt   *runner
	appear   chan struct{}
	appeared bool
	gaveUp   bool
	failures []*failure
}

// run returns the key of the first way that has one, and the failures until then.
// If all fail the error joins theirs; if the person gave up or ctx ended, it is that.
func (c *contest) run(ctx context.Context) (*found, []*failure, error) {
	ctx, stop := context.WithCancelCause(ctx)
	a := &arena{contest: c, ctx: ctx, events: make(chan contestEvent), over: make(chan struct{}), appear: make(chan struct{})}
	defer close(a.over)
	for _, w := range c.background {
		r := a.start(w)
		r.busy, r.aside = false, true
	}
	if c.prompt != nil {
		a.prompt = a.start(c.prompt(a.appear))
		a.prompt.busy = false // others go first
	}
	f, err := a.decide()
	stop(errEnough)
	a.settleDown()
	if f == nil && err == nil {
		err = joinFailures(a.failures)
	}
	return f, a.failures, err
}

// start runs a way in a goroutine of its own.
func (a *arena) start(w way) *runner {
	ctx, stop := context.WithCancelCause(a.ctx)
	r := &runner{way: w, stop: stop, began: time.Now(), busy: true}
	a.runners = append(a.runners, r)
	go func() {
		f, err := w.open(ctx, func(busy bool) { a.tell(contestEvent{of: r, busy: busy}) })
		if f == nil && err == nil {
			err = errors.New("gave neither key nor error")
		}
		if !a.tell(contestEvent{of: r, ended: true, found: f, err: err}) && f != nil {
			f.key.Wipe() // too late
		}
	}()
	return r
}

func (a *arena) tell(e contestEvent) bool {
	select {
	case a.events <- e:
		return true
	case <-a.over:
		return false
	}
}

// decide runs until a key is found, nothing is left, or a reason to stop.
func (a *arena) decide() (*found, error) {
	timer := time.NewTimer(a.patience)
	defer timer.Stop()
	for {
		a.beginMore()
		if a.allDone() {
			return nil, nil
		}
		select {
		case e := <-a.events:
			f, err := a.handle(e)
			if f != nil || err != nil {
				return f, err
			}
		case <-timer.C:
			a.impatient()
		case <-a.ctx.Done():
			return nil, context.Cause(a.ctx)
		}
	}
}

// beginMore starts ways for which the time has come and shows the prompt after the
// last one.
func (a *arena) beginMore() {
	for a.begun < len(a.ways) && !a.anyBusy() {
		a.beginNext()
	}
	if a.begun == len(a.ways) && !a.anyBusy() {
		a.showPrompt()
	}
}

func (a *arena) beginNext() {
	a.start(a.ways[a.begun])
	a.begun++
}

// impatient goes on although a way is still busy.
func (a *arena) impatient() {
	a.showPrompt()
	for a.begun < len(a.ways) {
		a.beginNext()
	}
}

func (a *arena) showPrompt() {
	if !a.appeared {
		a.appeared = true
		close(a.appear)
	}
}

func (a *arena) anyBusy() bool {
	for _, r := range a.runners {
		if r.busy && !r.done && r != a.prompt && !r.aside {
			return true
		}
	}
	return false
}

func (a *arena) allDone() bool {
	for _, r := range a.runners {
		if !r.done && !r.aside {
			return false
		}
	}
	return a.begun == len(a.ways)
}

// handle takes one event. A key or an error ends the contest.
func (a *arena) handle(e contestEvent) (*found, error) {
	r := e.of
	if !e.ended {
		r.busy, r.waiting = e.busy, !e.busy
		a.stopIdle()
		return nil, nil
	}
	r.done, r.busy = true, false
	if e.found != nil {
		return e.found, nil
	}
	if !errors.Is(e.err, errNoPatience) && !errors.Is(e.err, errNothing) && !r.aside {
		failed := &failure{way: r.name(), err: e.err, took: time.Since(r.began)}
		a.failures = append(a.failures, failed)
		if a.onFailure != nil && r != a.prompt {
			a.onFailure(failed)
		}
	}
	switch {
	case r == a.prompt && errors.Is(e.err, tokens.ErrCancelled):
		return nil, e.err
	case r == a.prompt && errors.Is(e.err, errGaveUp):
		a.gaveUp = true
		a.stopIdle()
	}
	return nil, nil
}

// stopIdle ends what only waits once nobody answers any more.
func (a *arena) stopIdle() {
	for _, r := range a.runners {
		if a.gaveUp && r.waiting && !r.done {
			r.stop(errNoPatience)
		}
	}
}

// settleDown gives the other ways a moment to end, so that helper processes are
// gone and the terminal is restored before anything else happens. A way that does
// not listen, such as a read from a dead device, is left behind.
func (a *arena) settleDown() {
	timer := time.NewTimer(a.settle)
	defer timer.Stop()
	for !a.settled() {
		select {
		case e := <-a.events:
			if e.ended {
				e.of.done = true
			}
			if e.found != nil {
				e.found.key.Wipe()
			}
		case <-timer.C:
			return
		}
	}
}

func (a *arena) settled() bool {
	for _, r := range a.runners {
		if !r.done {
			return false
		}
	}
	return true
}

func joinFailures(list []*failure) error {
	errs := make([]error, len(list))
	for i, f := range list {
		errs[i] = f
	}
	return errors.Join(errs...)
}
