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
	// claims are those of the prompt and of the tokens. The turn is kept until both have
	// passed.
	claims [2]claim
	wanted int // ways that wait for the turn
	// gaveWay says that nobody answered while a volume waited without which the boot does
	// not go on: such volumes are first from then on.
	gaveWay bool
}

// way is who asks for a volume.
type way int

const (
	forPassphrase way = iota
	forPIN
)

// claim is what a way has of the turn.
type claim struct {
	held  bool
	shown *shown // nil without a question
}

// shown is a question in view.
type shown struct {
	end   func()
	ended bool // in favour of another volume
}

// showing reports whether a question is in view that was not ended.
func (t *turn) showing() bool {
	for _, c := range t.claims {
		if c.shown != nil && !c.shown.ended {
			return true
		}
	}
	return false
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

// want counts the ways of the volume that wait for the turn. Where none is left, and none
// has it, nobody has to wait for this volume.
func (t *turn) want(n int) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.wanted += n; t.wanted > 0 {
		t.state = wanting
	} else if t.of.holder != t {
		t.state = away
	}
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

// take waits for the turn, in the name of a way. The error is the cause of ctx.
func (t *turn) take(ctx context.Context, w way) error {
	t.want(1)
	defer t.want(-1)
	late := time.NewTimer(t.of.patience)
	defer late.Stop()
	for waited := false; ; {
		mine, changed, idle := t.claim(w, waited)
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
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// claim takes the turn if it is this one's. Otherwise changed is closed when that may
// have changed, and after idle whoever has it may be made to give it up.
func (t *turn) claim(w way, waited bool) (mine bool, changed <-chan struct{}, idle time.Duration) {
	all := t.of
	all.mu.Lock()
	defer all.mu.Unlock()
	const never = 1 << 62
	if h := all.holder; h != nil && h != t {
		if h.optional && !t.optional && h.showing() {
			return false, all.changed, time.Until(h.typed.Add(keyLimit))
		}
		return false, all.changed, never
	}
	if all.holder == t { // for the other way
		t.claims[w] = claim{held: true}
		return true, all.changed, never
	}
	for _, before := range all.list[:slices.Index(all.list, t)] {
		if before.state == wanting && !before.gaveWay || before.state == coming && !before.never && !waited {
			return false, all.changed, never
		}
	}
	for _, other := range all.list {
		if t.gaveWay && !other.optional && other.state == wanting {
			return false, all.changed, never
		}
	}
	all.holder, t.claims[w] = t, claim{held: true}
	return true, all.changed, never
}

// displace takes the turn from a volume that nobody answers for.
func (t *turns) displace() {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.holder
	if h == nil || !h.showing() || time.Since(h.typed) < keyLimit {
		return
	}
	h.gaveWay = true
	for i := range h.claims {
		s := h.claims[i].shown
		if s == nil {
			h.claims[i].held = false // it asks nobody at present
			continue
		}
		s.ended = true
		s.end()
	}
}

// pass gives the turn to the next volume, unless another way of this one keeps it.
func (t *turn) pass(w way) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.claims[w] = claim{}
	if t.of.holder == t && !t.claims[1-w].held {
		t.of.holder, t.state = nil, away
		t.of.tell()
	}
}

// show notes that a way which has the turn shows a question, and what ends it. hide
// returns whether it was ended in favour of another volume.
func (t *turn) show(w way, end func()) (hide func() bool) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	s := &shown{end: end}
	t.claims[w].shown, t.typed = s, time.Now()
	t.of.tell()
	return func() bool {
		t.of.mu.Lock()
		defer t.of.mu.Unlock()
		if t.claims[w].shown == s {
			t.claims[w].shown = nil
		}
		return s.ended
	}
}

// key notes that somebody types.
func (t *turn) key() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.typed = time.Now()
}
