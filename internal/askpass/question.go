package askpass

import (
	"context"
	"sync"

	"luksmith/tokens"
)

// Question is a prompt with what only commands need.
type Question struct {
	tokens.Prompt
	// Verify asks twice, as crypttab's verify.
	Verify bool
	// Hidden keeps the question from view until [Pending.Reveal] is called or a
	// key is pressed on the console; that key is the first of the answer, unless
	// it is Enter. Until then no agent sees the question. Sources that need nobody
	// answer at once.
	Hidden bool
	// Fresh leaves out what is known already: files, credentials, and what the
	// keyring holds when the question is put. The caller has tried these.
	Fresh bool
	// Keep has the terminals stay without echo until [Pending.Release]: the answer is
	// being tried, and nobody shall see what is typed meanwhile, which is dropped.
	Keep bool
	// noun is what was wrong when Attempt is above 0; empty: PIN or passphrase.
	noun string
}

// Pending is a question that was put and not answered yet.
type Pending struct {
	asker    *Asker
	q        Question
	cancel   context.CancelCauseFunc
	revealed *gate
	done     chan struct{}
	answer   Answer
	err      error

	// What SetText changes, while the question is on consoles.
	mu    sync.Mutex
	lines map[*Console]*line
	text  string
	kept  []*Console
}

// line is a question on one console.
type line struct {
	prompt *prompt
	suffix string
}

// gate is a channel that is closed once.
type gate struct {
	once sync.Once
	ch   chan struct{}
}

func newGate() *gate { return &gate{ch: make(chan struct{})} }

func (g *gate) open() { g.once.Do(func() { close(g.ch) }) }

func (g *gate) isOpen() bool {
	select {
	case <-g.ch:
		return true
	default:
		return false
	}
}

// Start puts a question and returns at once. Every Pending must be waited for.
func (a *Asker) Start(ctx context.Context, q Question) *Pending {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &Pending{asker: a, q: q, cancel: cancel, revealed: newGate(), text: q.Text, done: make(chan struct{})}
	if !q.Hidden {
		p.revealed.open()
	}
	go func() {
		defer close(p.done)
		defer cancel(nil)
		p.answer, p.err = p.run(ctx)
	}()
	return p
}

// Wait returns the answer, which the caller wipes. When it returns, nothing of
// the question is left: terminal restored, agent's files removed. Errors are
// those of [tokens.UI.Ask].
func (p *Pending) Wait() (Answer, error) {
	<-p.done
	return p.answer, p.err
}

// Done is closed when Wait does not block any more.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Cancel withdraws the question: another way succeeded. Wait then returns
// context.Canceled, or an answer that came just before.
func (p *Pending) Cancel() { p.cancel(context.Canceled) }

// Reveal shows a hidden question.
func (p *Pending) Reveal() {
	p.revealed.open()
	for _, c := range p.asker.consoles() {
		c.look()
	}
}

// Revealed is closed when the question is in view, by Reveal or by a key.
func (p *Pending) Revealed() <-chan struct{} { return p.revealed.ch }

// Release gives back the terminals of a question with Keep, after Wait.
func (p *Pending) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.kept {
		c.release()
	}
	p.kept = nil
}

// SetText changes the question on the console, for example a time that runs
// out. What was typed stays. Agents go on showing the first text, because they
// would drop what was typed there.
func (p *Pending) SetText(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	for c, l := range p.lines {
		c.setText(l.prompt, p.label(text)+l.suffix)
	}
}

func (p *Pending) run(ctx context.Context) (Answer, error) {
	if ctx.Err() != nil {
		return Answer{}, cause(ctx)
	}
	if p.q.automatic() {
		if answer, err := p.asker.automatic(ctx, &p.q); err != nil || answer.Secrets != nil {
			return answer, err
		}
	}
	if p.asker.mute() {
		return Answer{}, p.nobody(nil)
	}
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	if p.q.Tries != nil {
		left, err := p.q.Tries(ctx)
		if err != nil {
			return Answer{}, err
		}
		p.mu.Lock() // SetText reads it
		p.q.TriesLeft = left
		p.mu.Unlock()
	}
	if p.q.New || p.q.Verify {
		return p.twice(ctx)
	}
	return p.possible(ctx)
}

// automatic reports whether sources that need nobody may answer.
func (q *Question) automatic() bool { return q.Attempt == 0 && !q.Fresh && !q.Person }

// view is how a question differs the second time.
type view struct {
	suffix string // of the text: " (repeat)"
	repeat bool
}

// twice asks until two answers agree.
func (p *Pending) twice(ctx context.Context) (Answer, error) {
	again := view{suffix: " (repeat)", repeat: true}
	if p.q.Verify {
		again.suffix = " (verification)"
	}
	for {
		first, err := p.once(ctx, view{})
		if err != nil {
			return Answer{}, err
		}
		if hint := strengthHint(first.single(), p.q.isPIN()); p.q.New && hint != "" {
			p.asker.Note(hint)
		}
		second, err := p.once(ctx, again)
		if err != nil {
			first.Wipe()
			return Answer{}, err
		}
		equal := first.Secrets[0].Equal(second.single())
		second.Wipe()
		if equal {
			first.Secrets = first.Secrets[:1]
			return first, nil
		}
		first.Wipe()
		p.asker.Note("The two answers differ, please try again.")
		p.q.Attempt = 0 // the new question follows no wrong answer
	}
}

// label is the question with the tries that the device has left, and what can be
// given instead.
func (p *Pending) label(text string) string {
	switch {
	case p.q.TriesLeft == 1:
		text += ", last try"
	case p.q.TriesLeft > 1:
		text = text + ", " + tokens.Tries(p.q.TriesLeft)
	}
	if p.instead() {
		text += ", or Enter for the " + p.asker.o.Instead()
	}
	return text
}

// instead reports whether the person may give a passphrase instead.
func (p *Pending) instead() bool {
	return p.asker.o.Instead != nil && p.asker.o.Instead() != "" && p.q.isPIN() && !p.q.New
}

// notices are lines to print before the question.
func (q *Question) notices() []string {
	var list []string
	if q.Attempt > 0 {
		noun := q.noun
		switch {
		case noun != "":
		case q.isPIN():
			noun = "PIN"
		default:
			noun = "passphrase"
		}
		list = append(list, "Wrong "+noun+", please try again.")
	}
	if q.TriesLeft == 1 {
		list = append(list, "This is the last try before the device locks itself.")
	}
	return list
}
