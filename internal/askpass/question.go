package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
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

	// What SetText changes, while the question is on the console.
	mu     sync.Mutex
	prompt *prompt
	text   string
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
	if c := p.asker.o.Console; c != nil {
		c.look()
	}
}

// Revealed is closed when the question is in view, by Reveal or by a key.
func (p *Pending) Revealed() <-chan struct{} { return p.revealed.ch }

// SetText changes the question on the console, for example a time that runs
// out. What was typed stays. Agents go on showing the first text, because they
// would drop what was typed there.
func (p *Pending) SetText(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	if p.prompt != nil {
		p.asker.o.Console.setText(p.prompt, p.q.label(text)+p.suffix)
	}
}

func (p *Pending) run(ctx context.Context) (Answer, error) {
	if ctx.Err() != nil {
		return Answer{}, cause(ctx)
	}
	if p.q.Attempt == 0 && !p.q.Fresh {
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
	return p.once(ctx, view{})
}

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

// way asks, and returns soon after its context ended.
type way struct {
	// alone says that the way can answer without another one. The keyring's cannot:
	// somebody has to fill it.
	alone bool
	ask   func(ctx context.Context, v view) (Answer, error)
}

// wayResult is what a way came to.
type wayResult struct {
	way
	answer Answer
	err    error
}

// once asks in all ways at the same time. The first answer wins, or the failure
// of the last way that could answer alone; the others are withdrawn before it is
// returned.
func (p *Pending) once(ctx context.Context, v view) (Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ways := p.ways()
	results := make(chan wayResult)
	alone := 0
	for _, w := range ways {
		if w.alone {
			alone++
		}
		go func() {
			answer, err := w.ask(ctx, v)
			results <- wayResult{w, answer, err}
		}()
	}
	var won *wayResult
	var failed []error
	for range ways {
		r := <-results
		if won != nil {
			r.answer.Wipe()
			continue
		}
		if r.err == nil || errors.Is(r.err, tokens.ErrCancelled) || ctx.Err() != nil {
			won = &r
		} else if r.alone {
			failed = append(failed, r.err)
			if len(failed) == alone {
				won = &wayResult{err: p.nobody(errors.Join(failed...))}
			}
		}
		if won != nil {
			cancel(context.Canceled)
		}
	}
	return won.answer, won.err
}

// nobody is the error when there is no way to ask, or none works.
func (p *Pending) nobody(why error) error {
	return &noPrompt{what: p.q.Text, why: why, hint: p.asker.statics.namesOf(&p.q).hint()}
}

// ways are those that the options allow.
func (p *Pending) ways() []way {
	o := p.asker.o
	var list []way
	if o.Console != nil || o.Plymouth != "" {
		list = append(list, way{true, p.onScreen})
	}
	if o.AgentDir != "" {
		list = append(list, way{true, p.byAgent})
	}
	if p.q.cacheable(o.Cache) {
		list = append(list, way{false, p.fromCache})
	}
	return list
}

// onScreen asks by plymouth while it shows a splash, else on the console.
func (p *Pending) onScreen(ctx context.Context, v view) (Answer, error) {
	answer, err := p.byPlymouth(ctx, v)
	if !errors.Is(err, errNoSplash) || p.asker.o.Console == nil {
		return answer, err
	}
	line := newPrompt(p.asker.o.Echo, p.revealed)
	line.first = p.q.isPIN()
	if !v.repeat {
		line.notices = p.q.notices()
	}
	p.show(line, v.suffix)
	s, err := p.asker.o.Console.ask(ctx, line)
	p.show(nil, "")
	if err != nil {
		return Answer{}, err
	}
	return Answer{Secrets: []secret.Secret{s}, Source: FromConsole}, nil
}

// show gives a prompt of the console its text and has SetText change it; nil ends
// that.
func (p *Pending) show(line *prompt, suffix string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if line != nil {
		line.text = p.q.label(p.text) + suffix
	}
	p.prompt, p.suffix = line, suffix
}

// label is the question with the tries that the device has left.
func (q *Question) label(text string) string {
	switch {
	case q.TriesLeft == 1:
		return text + ", last try"
	case q.TriesLeft > 1:
		return fmt.Sprintf("%s, %d tries left", text, q.TriesLeft)
	}
	return text
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

// untilInterrupted ends the context at SIGINT, SIGTERM and SIGHUP with a
// cli.SignalError. Unlike cli.WithSignals it holds off further signals until stop
// is called, so that an impatient person cannot keep the terminal from being
// restored.
func untilInterrupted(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(received, s)
		}
	}
	go func() {
		select {
		case s := <-received:
			cancel(&cli.SignalError{Signal: s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(received)
		cancel(nil)
	}
}
