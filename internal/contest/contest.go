// Package contest has several ways look for one volume key side by side, and a person
// beside them. It knows nothing of disks or headers.
package contest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Way is one way to a volume key: a token type, a key file, a person.
type Way interface {
	// Name is for messages and the report: "key file /k".
	Name() string
	// Open returns the key, which its caller wipes, or why there is none. While it
	// only waits for something to appear it says so with busy(false). It returns
	// soon after ctx ends.
	Open(ctx context.Context, busy func(bool)) (*Found, error)
}

// Found is a volume key and where it came from.
type Found struct {
	Key   secret.Secret // to be wiped by whoever has it
	Slot  int           // keyslot, -1 if unknown
	Token int           // number of the token, -1 without one
	By    string        // "key file /k", for people
	// Confirm, if not nil, checks whether the key still is that of what will be
	// mapped.
	Confirm func(context.Context) error
}

// Failure is a way that did not open the volume.
type Failure struct {
	Way  string // its name
	Err  error
	Took time.Duration
}

// Error is the reason with the name of the way.
func (f *Failure) Error() string { return fmt.Sprintf("%s: %v", f.Way, f.Err) }

// Unwrap returns the reason.
func (f *Failure) Unwrap() error { return f.Err }

// ErrNothing is returned by ways that found nothing to try. It is not a failure.
var ErrNothing = errors.New("nothing to try")

// errEnough is the cause with which a contest ends the ways that are left.
var errEnough = errors.New("the volume key was found another way")

// errNoPatience ends ways that still wait when the last person gave up.
var errNoPatience = errors.New("no longer waited for, because no further answer is accepted")

// ErrGaveUp is wrapped by the prompt after the last try: nobody will answer any
// more, so nothing is waited for either, but what is in progress may finish.
var ErrGaveUp = errors.New("too many wrong answers")

// Contest has several ways look for the volume key. They begin in their order, each
// when those before it have failed or only wait for something; after three seconds
// all the others begin. The prompt is there from the start but hidden; it appears
// by the same rule, or on a key press. The first key wins.
type Contest struct {
	Ways []Way
	// Prompt is nil if nobody may be asked. appear is closed when it may be seen.
	Prompt func(appear <-chan struct{}) Way
	// Background ways begin first. They hold nothing up, and when the others have
	// ended so have they.
	Background []Way
	// Patience is how long ways wait for the ones before them, and the prompt for
	// all of them.
	Patience time.Duration
	// OnFailure, if not nil, is called for each failure when it happens, except
	// that of the prompt.
	OnFailure func(*Failure)
	// Settle is how long to wait after the decision for the other ways to end.
	Settle time.Duration
}

// What a contest takes where nothing else is said.
const (
	Patience   = 3 * time.Second
	SettleTime = 500 * time.Millisecond
)

// runner is one way in a running contest.
type runner struct {
	Way
	stop    context.CancelCauseFunc
	began   time.Time
	busy    bool
	done    bool
	waiting bool // said busy(false)
	aside   bool // a background way
}

// event is what a way tells the contest.
type event struct {
	of   *runner
	busy bool
	// ended, and the result
	ended bool
	found *Found
	err   error
}

// arena is the state of one run. Only the goroutine of run touches it.
type arena struct {
	*Contest
	ctx      context.Context
	events   chan event
	over     chan struct{} // closed when nobody receives events any more
	runners  []*runner
	begun    int // of ways
	prompt   *runner
	appear   chan struct{}
	appeared bool
	gaveUp   bool
	failures []*Failure
}

// Run returns the key of the first way that has one, and the failures until then.
// If all fail the error joins theirs; if the person gave up or ctx ended, it is that.
func (c *Contest) Run(ctx context.Context) (*Found, []*Failure, error) {
	ctx, stop := context.WithCancelCause(ctx)
	ar := &arena{Contest: c, ctx: ctx, events: make(chan event), over: make(chan struct{}), appear: make(chan struct{})}
	defer close(ar.over)
	for _, w := range c.Background {
		r := ar.start(w)
		r.busy, r.aside = false, true
	}
	if c.Prompt != nil {
		ar.prompt = ar.start(c.Prompt(ar.appear))
		ar.prompt.busy = false // others go first
	}
	f, err := ar.decide()
	stop(errEnough)
	ar.settle()
	if f == nil && err == nil {
		err = joinFailures(ar.failures)
	}
	return f, ar.failures, err
}

// start runs a way in a goroutine of its own.
func (ar *arena) start(w Way) *runner {
	ctx, stop := context.WithCancelCause(ar.ctx)
	r := &runner{Way: w, stop: stop, began: time.Now(), busy: true}
	ar.runners = append(ar.runners, r)
	go func() {
		f, err := w.Open(ctx, func(busy bool) { ar.tell(event{of: r, busy: busy}) })
		if f == nil && err == nil {
			err = errors.New("gave neither key nor error")
		}
		if !ar.tell(event{of: r, ended: true, found: f, err: err}) && f != nil {
			f.Key.Wipe() // too late
		}
	}()
	return r
}

func (ar *arena) tell(e event) bool {
	select {
	case ar.events <- e:
		return true
	case <-ar.over:
		return false
	}
}

// decide runs until a key is found, nothing is left, or a reason to stop.
func (ar *arena) decide() (*Found, error) {
	timer := time.NewTimer(ar.Patience)
	defer timer.Stop()
	for {
		ar.beginMore()
		if ar.allDone() {
			return nil, nil
		}
		select {
		case e := <-ar.events:
			f, err := ar.handle(e)
			if f != nil || err != nil {
				return f, err
			}
		case <-timer.C:
			ar.impatient()
		case <-ar.ctx.Done():
			return nil, context.Cause(ar.ctx)
		}
	}
}

// beginMore starts ways for which the time has come and shows the prompt after the
// last one.
func (ar *arena) beginMore() {
	for ar.begun < len(ar.Ways) && !ar.anyBusy() {
		ar.beginNext()
	}
	if ar.begun == len(ar.Ways) && !ar.anyBusy() {
		ar.showPrompt()
	}
}

func (ar *arena) beginNext() {
	ar.start(ar.Ways[ar.begun])
	ar.begun++
}

// impatient goes on although a way is still busy.
func (ar *arena) impatient() {
	ar.showPrompt()
	for ar.begun < len(ar.Ways) {
		ar.beginNext()
	}
}

func (ar *arena) showPrompt() {
	if !ar.appeared {
		ar.appeared = true
		close(ar.appear)
	}
}

func (ar *arena) anyBusy() bool {
	for _, r := range ar.runners {
		if r.busy && !r.done && r != ar.prompt && !r.aside {
			return true
		}
	}
	return false
}

func (ar *arena) allDone() bool {
	for _, r := range ar.runners {
		if !r.done && !r.aside {
			return false
		}
	}
	return ar.begun == len(ar.Ways)
}

// handle takes one event. A key or an error ends the contest.
func (ar *arena) handle(e event) (*Found, error) {
	r := e.of
	if !e.ended {
		r.busy, r.waiting = e.busy, !e.busy
		ar.stopIdle()
		return nil, nil
	}
	r.done, r.busy = true, false
	if e.found != nil {
		return e.found, nil
	}
	if !errors.Is(e.err, errNoPatience) && !errors.Is(e.err, ErrNothing) && !r.aside {
		failed := &Failure{Way: r.Name(), Err: e.err, Took: time.Since(r.began)}
		ar.failures = append(ar.failures, failed)
		if ar.OnFailure != nil && r != ar.prompt {
			ar.OnFailure(failed)
		}
	}
	switch {
	case r == ar.prompt && errors.Is(e.err, tokens.ErrCancelled):
		return nil, e.err
	case r == ar.prompt && errors.Is(e.err, ErrGaveUp):
		ar.gaveUp = true
		ar.stopIdle()
	}
	return nil, nil
}

// stopIdle ends what only waits once nobody answers any more.
func (ar *arena) stopIdle() {
	for _, r := range ar.runners {
		if ar.gaveUp && r.waiting && !r.done {
			r.stop(errNoPatience)
		}
	}
}

// settle gives the other ways a moment to end, so that helper processes are
// gone and the terminal is restored before anything else happens. A way that does
// not listen, such as a read from a dead device, is left behind.
func (ar *arena) settle() {
	timer := time.NewTimer(ar.Settle)
	defer timer.Stop()
	for !ar.allEnded() {
		select {
		case e := <-ar.events:
			if e.ended {
				e.of.done = true
			}
			if e.found != nil {
				e.found.Key.Wipe()
			}
		case <-timer.C:
			return
		}
	}
}

func (ar *arena) allEnded() bool {
	for _, r := range ar.runners {
		if !r.done {
			return false
		}
	}
	return true
}

func joinFailures(list []*Failure) error {
	errs := make([]error, len(list))
	for i, f := range list {
		errs[i] = f
	}
	return errors.Join(errs...)
}
