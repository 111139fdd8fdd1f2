package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// passphraseKeyring is the description under which systemd's programs share
// passphrases of volumes in the kernel keyring.
const passphraseKeyring = "cryptsetup"

// answers tries what people and credentials give.
type answers struct {
	asker *askpass.Asker
	noun  noun
	disk  string // for the question
	try   tryFunc
	// accept is called with what opened the volume; from says where it came from.
	accept func(passphrase secret.Secret, from askpass.Source)
}

// question is the one for attempt number n.
func (a *answers) question(n int) askpass.PassphraseQuestion {
	return askpass.PassphraseQuestion{Kind: askpass.Kind(a.noun), Disk: a.disk, Attempt: n, Keyring: passphraseKeyring}
}

// tryAll tries the secrets of one answer, and wipes it.
func (a *answers) tryAll(ctx context.Context, answer askpass.Answer) (*contest.Found, error) {
	defer answer.Wipe()
	var errs []error
	for _, s := range answer.Secrets {
		f, err := a.try(ctx, s, nil)
		if err == nil {
			f.By = string(a.noun) + " from " + string(answer.Source)
			a.accept(s, answer.Source)
			return f, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// automaticWay tries the passphrases that need nobody: a credential, the kernel
// keyring. They count as no try.
type automaticWay struct {
	answers       // with an asker that asks nobody
	required bool // nobody may be asked instead
}

const storedPassphrase = "stored passphrase"

func (w *automaticWay) Name() string { return storedPassphrase }

func (w *automaticWay) Open(ctx context.Context, _ func(bool)) (*contest.Found, error) {
	var errs []error
	for {
		answer, err := w.asker.Passphrase(ctx, w.question(0))
		if errors.Is(err, tokens.ErrNoPrompt) {
			return nil, w.nothing(errs, err)
		}
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		source := answer.Source
		f, err := w.tryAll(ctx, answer)
		if err == nil {
			return f, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", source, err))
		if source == askpass.FromCache || !errors.Is(err, luks2.ErrNoKey) { // the last source
			return nil, errors.Join(errs...)
		}
	}
}

// nothing is the result when no source has anything more.
func (w *automaticWay) nothing(errs []error, missing error) error {
	switch {
	case len(errs) > 0:
		return errors.Join(errs...)
	case w.required:
		return nothingStored{missing}
	}
	return contest.ErrNothing
}

// nothingStored is tokens.ErrNoPrompt, with its hint, in the words of headless.
type nothingStored struct{ error }

func (nothingStored) Error() string {
	return "neither a credential nor the kernel keyring has one, and nobody may be asked"
}

func (e nothingStored) Unwrap() error { return e.error }

// promptWay asks a person, when it is the volume's turn.
type promptWay struct {
	answers
	turn *turn
	// settled waits until what opened other volumes was tried on this one.
	settled func(context.Context) error
	appear  <-chan struct{}
	tries   uint32 // 0 means no limit
	verify  bool
	timeout time.Duration // of all questions together
	again   string        // command that asks again
	untried bool          // the last answer could not be tried
	// reserve finds the memory that checking an answer takes, while the person types.
	reserve func() (release func())
}

func (w *promptWay) Name() string { return string(w.noun) + " prompt" }

func (w *promptWay) Open(ctx context.Context, _ func(bool)) (*contest.Found, error) {
	defer w.turn.pass(forPassphrase)
	for n := 0; ; {
		f, err := w.askInTurn(ctx, &n)
		if !errors.Is(err, errYielded) {
			return f, err
		}
		w.turn.pass(forPassphrase)
	}
}

// askInTurn asks until an answer is right, from attempt n on.
func (w *promptWay) askInTurn(ctx context.Context, n *int) (*contest.Found, error) {
	if err := w.turn.take(ctx, forPassphrase); err != nil {
		return nil, err
	}
	if err := w.settled(ctx); err != nil {
		return nil, err
	}
	limited, stop := w.limit(ctx)
	defer stop()
	for ; w.tries == 0 || uint64(*n) < uint64(w.tries); *n++ {
		answer, release, err := w.ask(limited, *n)
		if err != nil {
			release()
			return nil, err
		}
		f, err := w.check(ctx, answer) // which came in time, however long a KDF takes
		release()
		if err == nil {
			return f, nil
		}
		if limited.Err() != nil {
			return nil, context.Cause(limited)
		}
		if !isTypo(err) {
			return nil, err
		}
		if w.untried = !errors.Is(err, luks2.ErrNoKey); w.untried {
			w.asker.Note(err.Error())
		}
		if answer.Source == askpass.FromCache {
			*n-- // nobody typed it
		}
	}
	gaveUp := &gaveUpError{noun: w.noun, tries: *n, again: w.again}
	if w.turn.of.several() { // the next question must not come without a word
		w.asker.Note(fmt.Sprintf("%s for disk %s; it stays closed.", gaveUp, w.disk))
	}
	return nil, gaveUp
}

// check is tryAll; where it takes a while, the person sees that.
func (w *promptWay) check(ctx context.Context, answer askpass.Answer) (*contest.Found, error) {
	if typed(answer.Source) {
		defer w.mention("checking the " + string(w.noun) + " for disk " + w.disk)()
	}
	return w.tryAll(ctx, answer)
}

// mention shows a line when something takes longer than a moment, until done is called.
func (a *answers) mention(text string) (done func()) {
	shown := make(chan func(), 1)
	timer := time.AfterFunc(quietTime, func() { shown <- a.asker.Show(text) })
	return func() {
		if !timer.Stop() {
			(<-shown)()
		}
	}
}

// gaveUpError ends a prompt after the last wrong answer.
type gaveUpError struct {
	noun  noun
	tries int
	again string
}

func (e *gaveUpError) Error() string {
	if e.tries == 1 {
		return "wrong " + string(e.noun)
	}
	return fmt.Sprintf("%d wrong answers", e.tries)
}

// Unwrap makes it contest.ErrGaveUp and luks2.ErrNoKey.
func (e *gaveUpError) Unwrap() []error { return []error{contest.ErrGaveUp, luks2.ErrNoKey} }

// Hint is the command that asks again.
func (e *gaveUpError) Hint() string { return "to be asked again: " + e.again }

// limitedContext ends at a time that is not known before the question can be seen: a
// token that is slow must not use up the time of the person.
type limitedContext struct {
	context.Context
	deadline atomic.Pointer[time.Time]
	begin    func() // starts the time; may be called more than once
}

// Deadline is for password agents, which show it.
func (c *limitedContext) Deadline() (time.Time, bool) {
	if at := c.deadline.Load(); at != nil {
		return *at, true
	}
	return c.Context.Deadline()
}

// limit prepares timeout=, and the memory for the answers.
func (w *promptWay) limit(ctx context.Context) (*limitedContext, func()) {
	ctx, end := context.WithCancelCause(ctx)
	c := &limitedContext{Context: ctx}
	release := func() {}
	c.begin = sync.OnceFunc(func() {
		release = w.reserve()
		if w.timeout == crypttab.Forever {
			return
		}
		at := time.Now().Add(w.timeout)
		c.deadline.Store(&at)
		timer := time.AfterFunc(w.timeout, func() { end(timeoutError(fmt.Sprintf("nobody answered within %v", w.timeout))) })
		context.AfterFunc(ctx, func() { timer.Stop() })
	})
	return c, func() {
		end(nil)
		release()
	}
}

// ask puts the question, hidden until its time has come. release gives the terminal
// back when the answer was tried.
func (w *promptWay) ask(ctx *limitedContext, n int) (answer askpass.Answer, release func(), err error) {
	put := w.question(max(n, 0))
	if w.untried {
		put.Attempt = 0 // it was not wrong
	}
	put.Verify, put.Hidden, put.Fresh = w.verify, n == 0, true
	q := put.Question()
	q.Keep = true
	p := w.asker.Start(ctx, q)
	defer context.AfterFunc(ctx, p.Cancel)()
	hide := w.turn.show(forPassphrase, p.Cancel)
	select {
	case <-w.appear:
		ctx.begin()
		p.Reveal()
	case <-p.Revealed(): // by a key
		ctx.begin()
	case <-p.Done():
	}
	answer, err = p.Wait()
	yielded := hide()
	switch {
	case ctx.Err() != nil:
		answer.Wipe()
		return askpass.Answer{}, p.Release, context.Cause(ctx)
	case err != nil && yielded:
		return askpass.Answer{}, p.Release, errYielded
	}
	return answer, p.Release, err
}

// isTypo reports whether asking once more can help: the answer fits nothing, or there
// was no memory to try it, which others may give back.
func isTypo(err error) bool {
	return errors.Is(err, luks2.ErrNoKey) || errors.Is(err, luks2.ErrNoMemory)
}

// typed reports whether a person gave the answer just now.
func typed(s askpass.Source) bool {
	return slices.Contains([]askpass.Source{askpass.FromConsole, askpass.FromAgent, askpass.FromPlymouth}, s)
}
