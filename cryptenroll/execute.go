package main

import (
	"context"
	"errors"
	"fmt"

	"luksmith/crypttab"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// executor carries out plans: it enrols, proves and wipes.
type executor struct {
	unlocker  *unlocker
	enrolling tokens.Set
	yes       bool   // --yes
	unproven  bool   // --force-unproven-wipe
	backup    string // file for a copy of the header, empty for none
}

func (a *app) executor() *executor {
	return &executor{unlocker: a.unlocker(), enrolling: a.enrolling, yes: a.options.yes,
		unproven: a.options.unprovenWipe, backup: a.options.backup}
}

// enrolled is a keyslot that this run made.
type enrolled struct {
	slot, token int           // token -1 for a passphrase
	keyslot     luks2.Keyslot // as it was written
	result      *tokens.Enrollment
	// proven says that in this run its device gave the passphrase back, or a person
	// has it, and that it opened the keyslot from the disk.
	proven   bool
	replaced []int
	more     []*enrolled // further keyslots of the same enrolment
}

// all are the keyslots of the enrolment, this one first.
func (e *enrolled) all() []*enrolled { return append([]*enrolled{e}, e.more...) }

// slotsText names them: "keyslot 1", "keyslots 1, 2 and 3".
func (e *enrolled) slotsText() string {
	var list []luks2.Keyslot
	for _, made := range e.all() {
		list = append(list, luks2.Keyslot{ID: made.slot})
	}
	if len(list) == 1 {
		return "keyslot " + slotNumbers(list)
	}
	return "keyslots " + slotNumbers(list)
}

// wipeResult forgets the passphrases of an enrolment.
func wipeResult(r *tokens.Enrollment) {
	r.Passphrase.Wipe()
	for _, more := range r.More {
		more.Passphrase.Wipe()
	}
}

// outcome is what one volume's plan came to, for the report.
type outcome struct {
	plan     *plan
	opened   int             // keyslot that opened the volume, -1 if that was not needed
	gave     []int           // tokens of the volume that gave a passphrase which opened their keyslot
	known    []luks2.Keyslot // that gave the volume key in this run, before the plan
	enrolled *enrolled
	removed  *enrolled // it again, if it was taken back
	wiped    []tokens.Slot
	backup   string
	handout  *handout
	crypttab *crypttab.Changed // by --write-crypttab=, nil without
}

// wipe forgets the new key, once it was reported.
func (o *outcome) wipe() {
	for _, e := range []*enrolled{o.enrolled, o.removed} {
		if e != nil {
			wipeResult(e.result)
		}
	}
}

// execute does what the plan says: backup, unlock, enrol, prove, wipe. Until the
// wipe every step leaves all keys as they were.
func (ex *executor) execute(ctx context.Context, out *outcome) (err error) {
	p := out.plan
	if err := p.findDevice(ctx); err != nil {
		return err
	}
	if err := ex.backUp(ctx, out); err != nil {
		return err
	}
	var op *opened
	if p.needsKey {
		if op, err = ex.unlocker.unlock(ctx, p.target()); err != nil {
			return err
		}
		defer op.wipe()
		out.opened = op.key.Slot
	}
	return ex.carryOut(ctx, out, op)
}

// findDevice ends a call whose device is not there before anybody types a passphrase.
func (p *plan) findDevice(ctx context.Context) error {
	if f, ok := p.enroller.(tokens.Finder); ok {
		return f.Find(ctx)
	}
	return nil
}

// carryOut is execute once the volume is open; op is nil if the plan needs no key.
func (ex *executor) carryOut(ctx context.Context, out *outcome, op *opened) (err error) {
	if out.plan.enroller != nil {
		if out.enrolled, err = ex.enroll(ctx, out, op); err != nil {
			return err
		}
		if err := ex.handOut(ctx, out); err != nil {
			return err
		}
	}
	if err := ex.proveRemaining(out); err != nil {
		return err
	}
	return ex.wipeSlots(ctx, out)
}

// enroll makes the key, writes keyslot and token in one update, and opens the new
// slot from the disk.
func (ex *executor) enroll(ctx context.Context, out *outcome, op *opened) (*enrolled, error) {
	p, request := out.plan, *out.plan.request
	request.Opens = out.recordGiven(p.unlockRequest(nil, nil).Opens)
	if r, ok := p.enroller.(renewer); ok {
		r.opened(op.token, op.pin)
		if err := ex.authenticate(ctx, p, r, op.key); err != nil {
			return nil, err
		}
	}
	result, err := p.enroller.Enroll(ctx, &request, &typedOnce{UI: ex.unlocker.person.asker(), pin: op.pin, text: op.question})
	if err != nil {
		return nil, err
	}
	if s, ok := p.slot(op.key.Slot); ok && op.passphrase.Len() > 0 && result.Passphrase.Equal(op.passphrase) {
		result.Notes = append(result.Notes, fmt.Sprintf("the new passphrase is that of %s too", s.String()))
	}
	defer ex.unlocker.person.meanwhile(fmt.Sprintf("Computing the new keyslot of %s, and opening it once.", p.path))()
	e, err := ex.writeResult(ctx, out, op.key, result)
	if err != nil {
		wipeResult(result)
	}
	return e, err
}

// recordGiven notes which tokens give a passphrase that opens.
func (out *outcome) recordGiven(opens func(context.Context, luks2.Token, secret.Secret) error) func(context.Context, luks2.Token, secret.Secret) error {
	return func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
		err := opens(ctx, t, passphrase)
		if err == nil {
			out.gave = append(out.gave, t.ID)
		}
		return err
	}
}

// handOut gives the new key to the person. If that fails, the keyslot goes again.
func (ex *executor) handOut(ctx context.Context, out *outcome) error {
	err := out.handout.deliver(ctx, out)
	if lost, ok := errors.AsType[*notHandedOut](err); ok {
		err = ex.takeBack(out.plan, out.enrolled, lost)
		if _, gone := errors.AsType[*final](err); gone {
			out.removed, out.enrolled = out.enrolled, nil
		}
	}
	return err
}

// final is an error that says already what became of the volume.
type final struct {
	error
	text string
}

func (e *final) Error() string { return e.text }

func (e *final) Unwrap() error { return e.error }

// ended says, when a person or a signal ended the call, what was done until then.
func (o *outcome) ended(ctx context.Context, err error) error {
	if _, said := errors.AsType[*final](err); said || !errors.Is(err, tokens.ErrCancelled) && !errors.Is(err, context.Canceled) {
		return err
	}
	text := tokens.ErrCancelled.Error()
	if ctx.Err() != nil {
		text = context.Cause(ctx).Error()
	}
	wiped := "nothing was wiped"
	if len(o.wiped) > 0 {
		wiped = slotsText(o.wiped) + " " + wasOrWere(len(o.wiped)) + " wiped"
	}
	switch {
	case o.enrolled != nil && o.enrolled.result.Unchanged == nil:
		text += fmt.Sprintf("; %s of %s %s enrolled, %s", o.enrolled.slotsText(), o.plan.path, wasOrWere(len(o.enrolled.more)+1), wiped)
	case len(o.wiped) > 0:
		text += "; " + wiped
	default:
		text += "; nothing was changed"
	}
	return &final{err, text}
}

func wasOrWere(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}
