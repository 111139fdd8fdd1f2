package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// tryFunc tries a passphrase on the given keyslots, all that a passphrase may open
// when slots is nil. A passphrase that fits none gives [luks2.ErrNoKey].
type tryFunc func(ctx context.Context, passphrase secret.Secret, slots []int) (*contest.Found, error)

// watchFunc subscribes to events of kernel subsystems. The channel gets something
// when a device was added or changed; it is closed when ctx ends.
type watchFunc func(ctx context.Context, subsystems ...string) (<-chan struct{}, error)

// tokenWay opens the volume with the tokens of one or more types.
type tokenWay struct {
	types  []*tokenType
	volume tokens.Volume
	ui     tokens.UI
	try    tryFunc
	handed *handed // nil: a PIN is never a passphrase
	pins   *pinsInTurn
	watch  watchFunc
	// wait is how long to wait for devices that are not there, counted from the
	// first time that they are missed; 0 is not at all, crypttab.Forever forever.
	wait time.Duration
	// patience is how long a request, such as for a touch, is made again while nobody
	// answers it; 0 is without end, for where a person is asked beside it.
	patience time.Duration
}

// tokenType is one handler with what it may use.
type tokenType struct {
	handler tokens.Unlocker
	tokens  []luks2.Token
	// keyData reads the sealed object, salt or ciphertext that stands in a key file
	// instead of the header; nil when there is none.
	keyData func(context.Context) (secret.Secret, error)
	reason  error // what the last Unlock said, but for what was told
	noted   []string
	done    bool // nothing is left to try
	replug  bool // its device has to be plugged in again
}

func (w *tokenWay) Name() string {
	names := make([]string, len(w.types))
	for i, t := range w.types {
		names[i] = t.handler.Name()
	}
	return strings.Join(names, ", ") + " token"
}

// open tries every type, and those whose device is missing again after each event.
func (w *tokenWay) Open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer w.handed.close()
	defer w.pins.pass()
	var errs []error
	var events <-chan struct{}
	var deadline <-chan time.Time
	for event := true; ; {
		person := &attentive{UI: w.ui}
		f, failed, err := w.round(ctx, person, event)
		if f != nil || err != nil {
			return f, err
		}
		errs = append(errs, failed...)
		if !w.missing() || w.wait == 0 {
			return nil, errors.Join(append(errs, w.missed()...)...)
		}
		for _, err := range append(failed, w.trouble()...) { // the others are told when the way has ended
			w.ui.Note(err.Error())
		}
		if deadline == nil || person.involved { // the device was there a moment ago
			deadline = after(w.wait)
		}
		if events == nil { // a device may have come before the subscription
			if events, err = w.watch(ctx, w.subsystems()...); err != nil {
				return nil, errors.Join(append(errs, fmt.Errorf("waiting for security devices: %w", err))...)
			}
			event = false
			continue
		}
		if err := w.await(ctx, busy, events, deadline); err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		event = true
	}
}

// attentive is a UI that notes whether anybody was asked for anything.
type attentive struct {
	tokens.UI
	involved bool
}

// Ask passes the question on.
func (a *attentive) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	a.involved = true
	return a.UI.Ask(ctx, p)
}

// Show passes the line on.
func (a *attentive) Show(text string) func() {
	a.involved = true
	return a.UI.Show(text)
}

// round calls every handler that is left, after an event also those whose device
// has to be plugged in again. err ends the way, failed does not.
func (w *tokenWay) round(ctx context.Context, ui tokens.UI, event bool) (f *contest.Found, failed []error, err error) {
	for _, t := range w.types {
		if t.done || t.replug && !event {
			continue
		}
		f, err := w.unlock(ctx, t, ui)
		if f == nil {
			f = w.handed.take()
		}
		if f != nil {
			return f, nil, nil
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		t.reason = untold(err)
		failed = append(failed, t.judge(err)...)
	}
	return nil, failed, nil
}

// unlock calls a handler, again only for PINs that a person mistyped.
func (w *tokenWay) unlock(ctx context.Context, t *tokenType, ui tokens.UI) (*contest.Found, error) {
	req := &tokens.UnlockRequest{Volume: w.volume, Tokens: t.tokens}
	if t.keyData != nil {
		data, err := t.keyData(ctx)
		if err != nil {
			return nil, err
		}
		defer data.Wipe()
		req.KeyData = data
	}
	var f *contest.Found
	req.Opens = func(ctx context.Context, tok luks2.Token, passphrase secret.Secret) error {
		slots := tok.Keyslots
		if tok.ID < 0 {
			slots = nil
		}
		opened, err := w.try(ctx, passphrase, slots)
		if err != nil {
			return asTokenError(err)
		}
		f = opened
		f.Token, f.By = tok.ID, t.handler.Name()+" token"
		return nil
	}
	u, err := w.patiently(ctx, ui, func(ctx context.Context, ui tokens.UI) (*tokens.Unlocked, error) {
		return tokens.UnlockWithRetries(ctx, t.handler, req, ui)
	})
	if err == nil {
		u.Passphrase.Wipe()
	}
	if err != nil && f != nil { // opened, but the handler changed its mind
		f.Key.Wipe()
		f = nil
	}
	if err == nil && f == nil {
		err = fmt.Errorf("%s: %w", t.handler.Type(), tokens.ErrWrongKey)
	}
	return f, err
}

// asTokenError says the same as luks2.ErrNoKey in the words of token types.
func asTokenError(err error) error {
	none, ok := errors.AsType[*luks2.NoKeyError](err)
	switch {
	case ok && len(none.Skipped) > 0:
		return fmt.Errorf("%w: %w", tokens.ErrWrongKey, err)
	case errors.Is(err, luks2.ErrNoKey):
		return tokens.ErrWrongKey
	}
	return err
}

// judge decides what a failed Unlock leaves to try, which are the tokens whose
// device is absent or has to be plugged in again, and returns the failures that are
// worth a word.
func (t *tokenType) judge(err error) (failed []error) {
	t.replug = errors.Is(err, tokens.ErrReplug)
	absent := errors.Is(err, tokens.ErrNoDevice) || t.replug
	gone := map[int]bool{}
	for _, e := range tokenErrors(err) {
		if errors.Is(e.Err, tokens.ErrNoDevice) {
			continue
		}
		failed = append(failed, e)
		gone[e.ID] = !errors.Is(e.Err, tokens.ErrReplug)
	}
	t.tokens = slices.DeleteFunc(slices.Clone(t.tokens), func(tok luks2.Token) bool { return gone[tok.ID] })
	if absent && (len(t.tokens) > 0 || t.keyData != nil && !gone[-1]) {
		return failed
	}
	t.done = true
	return []error{err}
}

// tokenErrors collects the failures of single tokens from a tree of errors.
func tokenErrors(err error) (list []*tokens.TokenError) {
	switch e := err.(type) {
	case *tokens.TokenError:
		return []*tokens.TokenError{e}
	case interface{ Unwrap() error }:
		return tokenErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, child := range e.Unwrap() {
			list = append(list, tokenErrors(child)...)
		}
	}
	return list
}

// untold is what an error says beside the failures of single tokens, which are told one
// by one; nil if that is all.
func untold(err error) error {
	var rest []error
	for _, e := range leaves(err) {
		if len(tokenErrors(e)) == 0 || errors.Is(e, tokens.ErrNoDevice) {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}

// trouble is what is wrong with devices that are there, each thing once: whoever reads
// only that a device is waited for would plug in what is plugged in.
func (w *tokenWay) trouble() (list []error) {
	for _, t := range w.types {
		for _, err := range leaves(t.reason) {
			if t.done || errors.Is(err, tokens.ErrNoDevice) || slices.Contains(t.noted, err.Error()) {
				continue
			}
			t.noted = append(t.noted, err.Error())
			list = append(list, err)
		}
	}
	return list
}

// leaves are the errors that were joined.
func leaves(err error) (list []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok || err.Error() != errors.Join(joined.Unwrap()...).Error(): // it has words of its own
		return []error{err}
	}
	for _, child := range joined.Unwrap() {
		list = append(list, leaves(child)...)
	}
	return list
}

func (w *tokenWay) missing() bool {
	return slices.ContainsFunc(w.types, func(t *tokenType) bool { return !t.done })
}

// missed are the errors of types whose device is not there.
func (w *tokenWay) missed() (errs []error) {
	for _, t := range w.types {
		switch {
		case t.done:
		case t.replug: // it is there; why it takes no PIN was told
			errs = append(errs, fmt.Errorf("%s: %w: it was not plugged in again", t.handler.Name(), tokens.ErrLocked))
		default:
			errs = append(errs, fmt.Errorf("%s: %w", t.handler.Name(), cmp.Or(t.reason, tokens.ErrNoDevice)))
		}
	}
	return errs
}

func (w *tokenWay) subsystems() (list []string) {
	for _, t := range w.types {
		if watcher, ok := t.handler.(tokens.Watcher); ok && !t.done {
			list = append(list, watcher.Subsystems()...)
		}
	}
	return list
}

// await waits for an event, and says so.
func (w *tokenWay) await(ctx context.Context, busy func(bool), events <-chan struct{}, deadline <-chan time.Time) error {
	hide := w.ui.Show(w.waitingText())
	defer hide()
	changed, stop := w.waitDevices(ctx)
	defer stop()
	busy(false)
	w.pins.pass() // nobody can be asked for a PIN before it is there
	if slices.ContainsFunc(w.types, func(t *tokenType) bool { return t.replug }) {
		select { // from when the device was plugged in before
		case <-events:
		default:
		}
	}
	select {
	case <-changed:
	case _, open := <-events:
		if !open && ctx.Err() == nil {
			return errors.New("waiting for security devices: the kernel's events ended")
		}
	case <-deadline:
		errs := w.missed()
		if locked := errors.Join(errs...); errors.Is(locked, tokens.ErrLocked) {
			return fmt.Errorf("%w (waited %v)", locked, w.wait)
		}
		return fmt.Errorf("%w: %w after %v", tokens.ErrTimeout, errors.Join(errs...), w.wait)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	busy(true)
	return nil
}

// waitDevices has the handlers wait for what the kernel does not see, such as a card
// in a reader. The channel gets something when one of them has seen a change. stop
// returns when all have ended: a handler does one thing at a time.
func (w *tokenWay) waitDevices(ctx context.Context) (changed <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan struct{}, len(w.types))
	var waiting sync.WaitGroup
	for _, t := range w.types {
		waiter, ok := t.handler.(tokens.DeviceWaiter)
		if !ok || t.done {
			continue
		}
		waiting.Go(func() {
			if waiter.WaitDevice(ctx) == nil { // after an error only the kernel's events are left
				seen <- struct{}{}
			}
		})
	}
	return seen, func() { cancel(); waiting.Wait() }
}

func (w *tokenWay) waitingText() string {
	var names []string
	for _, t := range w.types {
		if !t.done {
			names = append(names, t.handler.Name())
		}
	}
	return fmt.Sprintf("waiting for a security device (%s) for %s", strings.Join(names, ", "), forHowLong(w.wait))
}
