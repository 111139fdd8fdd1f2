package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// enroller is the part of tokens.Enroller that a plan needs; a passphrase has it
// too, although it makes no token.
type enroller interface {
	Plan(req *tokens.EnrollRequest) (string, error)
	Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error)
}

// plan is what one call will do to one volume. It is made without asking anybody
// and without writing; --dry-run prints it, and the same value is then executed.
type plan struct {
	*volume

	enroller enroller // nil: nothing is enrolled
	request  *tokens.EnrollRequest
	what     string // the enroller's word for it
	priority luks2.Priority
	renames  map[int]string // labels that the update gives to slots that stay
	sole     bool           // no other keyslot may have the label when it is written
	// needsKey says whether the volume has to be opened: to enrol, or to prove
	// before a wipe that another keyslot opens it.
	needsKey bool
	closed   []int // tokens that are known not to open now

	wipe     []tokens.Slot // ascending
	unproven bool          // wipe without a proof
	missing  []int         // keyslots that were to be wiped and are not there
	orphans  []int         // tokens without keyslot that a wipe of their type takes along
	warnings []string
	// advice is said once, with the result; "" if there is none.
	advice string
}

// target is the volume for an unlocker, with what is to be wiped as the last resort:
// only another keyslot is a proof.
func (p *plan) target() *target {
	t := &target{volume: p.volume, closed: p.closed}
	if len(p.wipe) > 0 {
		t.last = p.wiped
	}
	return t
}

// wiped reports whether a slot is to be wiped.
func (p *plan) wiped(slot int) bool {
	return slices.ContainsFunc(p.wipe, func(s tokens.Slot) bool { return s.ID == slot })
}

// addWipe adds a slot to those that are to be wiped.
func (p *plan) addWipe(slot int) {
	if s, ok := p.slot(slot); ok && !p.wiped(slot) {
		p.wipe = append(p.wipe, s)
	}
}

// empty reports whether executing the plan would do nothing.
func (p *plan) empty() bool {
	return p.enroller == nil && len(p.wipe) == 0 && len(p.orphans) == 0 && len(p.missing) == 0
}

// planner decides what a call will do, from its options and the header alone.
type planner struct {
	o                    *options
	enrolling, unlocking tokens.Set
	person               *asking // asked by what is enrolled, not while planning
	name, root           string
	manner               manner
}

func (a *app) planner() *planner {
	return &planner{o: &a.options, enrolling: a.enrolling, unlocking: a.unlocking, person: a.asking(), name: a.name, root: a.root, manner: a.manner}
}

// makePlan is everything that can be found out and refused before anybody is
// asked and anything is written.
func (a *app) makePlan(ctx context.Context, path string) (*plan, error) {
	v, err := a.openVolume(ctx, path, true)
	if err != nil {
		return nil, err
	}
	return a.planner().plan(ctx, v)
}

// plan decides for one volume.
func (pl *planner) plan(ctx context.Context, v *volume) (*plan, error) {
	p := &plan{volume: v, unproven: pl.o.unprovenWipe}
	if err := pl.o.unlock.resolve(v); err != nil {
		return nil, err
	}
	if err := pl.planEnrollment(p); err != nil {
		return nil, err
	}
	if err := pl.planWipe(ctx, p); err != nil {
		return nil, err
	}
	if err := pl.judgeSpace(ctx, p); err != nil {
		return nil, err
	}
	p.needsKey = p.enroller != nil || len(p.wipe) > 0 && !pl.o.unprovenWipe
	if pl.manner.advises() {
		pl.warnAhead(p)
	}
	pl.warnOfDoubt(p)
	return p, nil
}

func (pl *planner) planEnrollment(p *plan) (err error) {
	o := pl.o
	switch {
	case o.changePIN:
		if p.enroller, err = pl.planPINChange(p); err != nil {
			return err
		}
	case o.password:
		p.enroller = &passphraseEnroller{person: pl.person, kdf: &o.kdf}
	case o.enrollWith != nil:
		p.enroller = o.enrollWith
	default:
		return o.refuseWithoutEnrollment()
	}
	if o.label != "" {
		if err := tokens.CheckLabel(o.label); err != nil {
			return fmt.Errorf("--label=: %w", err)
		}
	}
	if p.priority, err = parsePriority(o.priority); err != nil {
		return err
	}
	compat, err := pl.compatOf(p.enroller)
	if err != nil {
		return err
	}
	p.request = &tokens.EnrollRequest{Volume: p.forTokens(), Label: o.label, Compat: compat}
	if p.what, err = pl.what(p); err != nil {
		return err
	}
	return o.refuseUnusedRecovery(p.enroller)
}

// judgeSpace has --dry-run say when the header has no room. The token is not made
// yet, so it counts with what every token has. Without --dry-run the write says it,
// since what is enrolled already needs none.
func (pl *planner) judgeSpace(ctx context.Context, p *plan) error {
	if p.enroller == nil || !pl.o.dryRun {
		return nil
	}
	err := p.device.Rehearse(ctx, func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(nil, secret.Secret{}, luks2.MinimalKDF)
		if err != nil || pl.o.password {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Type: "systemd-recovery", Keyslots: []int{slot}})
		return err
	})
	if p.makesRoom(err) && !pl.o.confirm {
		p.warnings = append(p.warnings, "there is no room for the new keyslot beside what is wiped, which goes first if a keyslot that stays opens the volume")
		return nil
	}
	if err != nil {
		return fmt.Errorf("enrolling %s: %w", p.what, err)
	}
	return nil
}

// compatOf is the oldest systemd that has to read the new token. By default a token
// in place of another keeps its form: what reads the old one reads the new one.
func (pl *planner) compatOf(e enroller) (int, error) {
	compat, err := parseCompat(pl.o.compat, pl.root)
	if r, ok := e.(renewer); ok && pl.o.compat == "auto" {
		compat = max(compat, tpm2.OldestSystemd(r.replaced().Raw))
	}
	return compat, err
}

// what has the enroller say what it would make. Where nobody named a version with
// --compat=, an option that the installed systemd does not know decides instead.
func (pl *planner) what(p *plan) (string, error) {
	installed := p.request.Compat
	for {
		what, err := p.enroller.Plan(p.request)
		newer, ok := errors.AsType[*tokens.NeedsSystemdError](err)
		if !ok || pl.o.compat != "auto" || newer.Since <= p.request.Compat {
			return what, err
		}
		p.request.Compat = newer.Since
		p.warnings = append(p.warnings, fmt.Sprintf("%s is read by systemd %d and later; %d is installed", newer.What, newer.Since, installed))
	}
}

// given is an option and whether it stood on the command line.
type given struct {
	name string
	set  bool
}

// refuseWithoutEnrollment refuses options that only have a meaning with one.
func (o *options) refuseWithoutEnrollment() error {
	for _, g := range []given{{"--label=", o.label != ""}, {"--priority=", o.priority != ""}, {"--recovery-sheet=", o.sheet != ""},
		{"--recovery-confirm", o.confirm}, {"--recovery-escrow=", !o.escrow.Empty()}, {"--recovery-escrow-file=", o.escrowFile != ""}, {"--new-pin-file=", o.newPINFile != ""}, {"--write-crypttab", o.crypttab != ""}} {
		if g.set {
			return usagef("%s needs something to enrol", g.name)
		}
	}
	return nil
}

// warnAhead collects what the person should know before saying yes.
func (pl *planner) warnAhead(p *plan) {
	left := slices.DeleteFunc(slices.Clone(p.slots), func(s tokens.Slot) bool { return p.wiped(s.ID) || !s.WayIn() })
	has := func(kind string) bool {
		return slices.ContainsFunc(left, func(s tokens.Slot) bool { return s.Kind == kind })
	}
	enrolls := func(name string) bool {
		e, ok := p.enroller.(tokens.Enroller)
		return ok && e.Name() == name
	}
	text := "there is no recovery key yet: " + pl.name + " --recovery-key " + p.words()
	switch {
	case has("recovery") || enrolls("recovery"):
	case len(p.wipe) > 0:
		p.warnings = append(p.warnings, text)
	case p.enroller != nil && !pl.o.password:
		p.advice = text
	}
}
