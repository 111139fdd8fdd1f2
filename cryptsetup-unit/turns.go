package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// turns has the volumes of one run ask for their passphrases one after the other, in
// the order of crypttab. A volume keeps its turn until it is open or gives up, so that
// nobody types for one while the answer for another is still being tried.
type turns struct {
	mu       sync.Mutex
	list     []*turn       // in the order of crypttab
	holder   *turn         // nil while nobody asks
	changed  chan struct{} // closed and replaced when anything of this changes
	patience time.Duration // how long a volume waits for those before it that may ask soon
}

// turn is the place of one volume.
type turn struct {
	of       *turns
	optional bool // the boot goes on without it
	never    bool // nobody may be asked for it
	state    turnState
	typed    time.Time // when a key was last pressed, or the question shown
	yield    func()    // ends the question that is shown; nil without one
	yielded  bool
}

type turnState int

const (
	coming turnState = iota // may ask soon
	away                    // waits for its disk, or is done
	wanting
)

// errYielded ends a question in favour of that of a volume without which the boot does
// not go on.
var errYielded = errors.New("another volume is asked about first")

func newTurns(jobs []*job, patience time.Duration) *turns {
	t := &turns{changed: make(chan struct{}), patience: patience}
	for _, j := range jobs {
		j.turn = &turn{of: t, optional: j.optional(), never: j.options.Headless || j.options.TokenOnly}
		t.list = append(t.list, j.turn)
	}
	return t
}

// several reports whether anybody else may ask.
func (t *turns) several() bool { return len(t.list) > 1 }

// tell wakes those that wait. The lock is held.
func (t *turns) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// set changes the state of a volume that does not ask.
func (t *turn) set(s turnState) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.state = s
	t.of.tell()
}

// whileMissing notes, after a moment, that the volume's disk is waited for, until done is
// called: the questions of others do not wait for it then.
func (t *turn) whileMissing() (done func()) {
	timer := time.AfterFunc(quietTime, func() { t.set(away) })
	return func() {
		timer.Stop()
		t.set(coming)
	}
}

// take waits for the turn. The error is the cause of ctx.
func (t *turn) take(ctx context.Context) error {
	t.set(wanting)
	late := time.NewTimer(t.of.patience)
	defer late.Stop()
	for waited := false; ; {
		mine, changed, idle := t.claim(waited)
		if mine {
			return nil
		}
		timer := time.NewTimer(idle)
		select {
		case <-changed:
		case <-late.C:
			waited = true
		case <-timer.C:
			t.of.displace()
		case <-ctx.Done():
			t.set(away)
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// claim takes the turn if it is this one's. Otherwise changed is closed when that may
// have changed, and after idle whoever has it may be made to give it up.
func (t *turn) claim(waited bool) (mine bool, changed <-chan struct{}, idle time.Duration) {
	all := t.of
	all.mu.Lock()
	defer all.mu.Unlock()
	const never = 1 << 62
	if h := all.holder; h != nil {
		if h.optional && !t.optional && h.yield != nil && !h.yielded {
			return false, all.changed, time.Until(h.typed.Add(keyLimit))
		}
		return false, all.changed, never
	}
	for _, before := range all.list[:slices.Index(all.list, t)] {
		if before.state == wanting || before.state == coming && !before.never && !waited {
			return false, all.changed, never
		}
	}
	all.holder = t
	return true, all.changed, never
}

// displace takes the turn from a volume that nobody answers for.
func (t *turns) displace() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.holder; h != nil && h.yield != nil && !h.yielded && time.Since(h.typed) >= keyLimit {
		h.yielded = true
		h.yield()
	}
}

// pass gives the turn to the next one.
func (t *turn) pass() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.of.holder == t {
		t.of.holder, t.state = nil, away
		t.of.tell()
	}
}

// show notes that a question is in view, which yield ends. hide returns whether it was
// ended so.
func (t *turn) show(yield func()) (hide func() bool) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.yield, t.yielded, t.typed = yield, false, time.Now()
	t.of.tell()
	return func() bool {
		t.of.mu.Lock()
		defer t.of.mu.Unlock()
		t.yield = nil
		return t.yielded
	}
}

// key notes that somebody types.
func (t *turn) key() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.typed = time.Now()
}
