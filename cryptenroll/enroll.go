package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/internal/askpass"
	"luksmith/luks2"
	"luksmith/tokens"
)

// enrolled is a keyslot that this run made.
type enrolled struct {
	slot, token int           // token -1 for a passphrase
	keyslot     luks2.Keyslot // as it was written
	result      *tokens.Enrollment
	proven      bool // opened from the disk with the secret that was handed out
	replaced    []int
}

// outcome is what one volume's plan came to, for the report.
type outcome struct {
	plan     *plan
	opened   int // keyslot that opened the volume, -1 if that was not needed
	enrolled *enrolled
	wiped    []tokens.Slot
	backup   string
	handout  *handout
}

// wipe forgets the new key, once it was reported.
func (o *outcome) wipe() {
	if o.enrolled != nil {
		o.enrolled.result.Passphrase.Wipe()
	}
}

// change plans, asks, and executes: the whole of an enrolment or wipe.
func (a *app) change(ctx context.Context, paths []string) error {
	if len(paths) > 1 {
		return a.changeSeveral(ctx, paths)
	}
	p, err := a.makePlan(ctx, paths[0])
	if err != nil {
		return err
	}
	if p.empty() && !a.options.dryRun {
		a.msg.Err.Linef("No keyslot of %s matches --wipe-slot=%s; nothing was changed.", p.path, strings.Join(a.options.wipe, ","))
		return nil
	}
	return a.carryOut(ctx, p)
}

// carryOut prints a plan, or asks and executes it, and reports.
func (a *app) carryOut(ctx context.Context, p *plan) error {
	if a.options.dryRun {
		return a.printPlans([]*plan{p})
	}
	for _, text := range p.warnings {
		a.msg.Warning(text)
	}
	if err := a.confirmWipe(ctx, p); err != nil {
		return err
	}
	out := &outcome{plan: p, opened: -1}
	defer out.wipe()
	if err := a.execute(ctx, out); err != nil {
		if out.handout != nil && out.handout.begun {
			err = errors.Join(err, a.endDocument(out))
		}
		return err
	}
	if err := a.report(out); err != nil {
		return err
	}
	out.handout.showQR(out.enrolled)
	return nil
}

// execute does what the plan says: backup, unlock, enrol, prove, wipe. Until the
// wipe every step leaves all keys as they were.
func (a *app) execute(ctx context.Context, out *outcome) (err error) {
	p := out.plan
	if out.handout, err = a.prepareHandout(ctx, p); err != nil {
		return err
	}
	defer out.handout.discard()
	if err := a.backUp(ctx, out); err != nil {
		return err
	}
	if p.needsKey {
		op, err := a.unlock(ctx, p)
		if err != nil {
			return err
		}
		defer op.wipe()
		out.opened = op.key.Slot
		if p.enroller != nil {
			if out.enrolled, err = a.enroll(ctx, p, op); err != nil {
				return err
			}
			if err := out.handout.deliver(ctx, out); err != nil {
				return err
			}
		}
	}
	if err := a.proveRemaining(out); err != nil {
		return err
	}
	return a.wipeSlots(ctx, out)
}

// enrol makes the key, writes keyslot and token in one update, and opens the new
// slot from the disk.
func (a *app) enroll(ctx context.Context, p *plan, op *opened) (*enrolled, error) {
	if r, ok := p.enroller.(renewer); ok {
		r.opened(op.token, op.pin)
	}
	result, err := p.enroller.Enroll(ctx, p.request, &typedOnce{UI: a.asker(), pin: op.pin, text: op.question})
	if err != nil {
		return nil, err
	}
	e, err := a.writeResult(ctx, p, op.key, result)
	if err != nil {
		result.Passphrase.Wipe()
	}
	return e, err
}

// keep takes a slot out of the wipe: --wipe-slot= never removes what an enrolment
// of the same call made, or found in place already.
func (p *plan) keep(slot int) {
	p.wipe = slices.DeleteFunc(p.wipe, func(s tokens.Slot) bool { return s.ID == slot })
}

// write adds keyslot and token, and takes away what they replace, in one update.
func (a *app) write(ctx context.Context, p *plan, vk *luks2.VolumeKey, e *enrolled) error {
	r := e.result
	return p.device.Update(ctx, func(tx *luks2.Tx) (err error) {
		e.replaced = nil
		if e.slot, err = tx.AddKeyslot(vk, r.Passphrase, r.KDF); err != nil {
			return err
		}
		if p.priority != luks2.PriorityNormal {
			if err := tx.SetPriority(e.slot, p.priority); err != nil {
				return err
			}
		}
		written, _ := tx.Header().Keyslot(e.slot)
		e.keyslot, e.token = *written, -1
		if r.Token != nil {
			if e.token, err = tx.AddToken(luks2.Token{Keyslots: []int{e.slot}, Raw: r.Token}); err != nil {
				return err
			}
		} else if r.Label != "" {
			if err := tokens.SetLabel(tx, a.enrolling, e.slot, r.Label); err != nil {
				return err
			}
		}
		for slot, label := range p.renames {
			if err := tokens.SetLabel(tx, a.enrolling, slot, label); err != nil {
				return err
			}
		}
		return e.replace(tx, p.header)
	})
}

// replace removes the keyslots of the tokens that the new one supersedes, unless
// they changed since the enroller looked at them.
func (e *enrolled) replace(tx *luks2.Tx, seen *luks2.Header) error {
	for _, id := range e.result.Replaces {
		before, _ := seen.Token(id)
		now, ok := tx.Header().Token(id)
		if !ok || before == nil || string(before.Raw) != string(now.Raw) || len(now.Keyslots) != 1 {
			continue
		}
		slot := now.Keyslots[0]
		if err := removeSlotAndTokens(tx, slot); err != nil {
			return err
		}
		e.replaced = append(e.replaced, slot)
	}
	return nil
}

// prove opens the new keyslot from the disk with the secret that was handed out.
func (p *plan) prove(ctx context.Context, e *enrolled) error {
	vk, err := p.device.OpenKeyslot(ctx, e.slot, e.result.Passphrase)
	if err != nil {
		return fmt.Errorf("checking the new keyslot %d of %s: %w", e.slot, p.path, err)
	}
	vk.Wipe()
	e.proven = true
	return nil
}

// takeBack removes a keyslot that nobody got the key of, and adds to the cause what
// became of it. A slot that replaced others stays: they are gone.
func (a *app) takeBack(p *plan, e *enrolled, cause error) error {
	if len(e.replaced) > 0 {
		return cause
	}
	ctx := context.Background() // also after Ctrl-C
	err := p.device.Update(ctx, func(tx *luks2.Tx) error { return removeSlotAndTokens(tx, e.slot) })
	if err != nil {
		return errors.Join(cause, fmt.Errorf("removing the new keyslot %d again: %w", e.slot, err))
	}
	return fmt.Errorf("%w; the new keyslot %d is removed again", cause, e.slot)
}

// backUp copies the header to the file of --backup=, before anything is written.
func (a *app) backUp(ctx context.Context, out *outcome) error {
	if a.options.backup == "" {
		return nil
	}
	if err := out.plan.device.Backup(ctx, a.options.backup); err != nil {
		return err
	}
	out.backup = a.options.backup
	return nil
}

// asker asks the person at the terminal, or a password agent in a service. It is
// the UI of handlers too.
func (a *app) asker() *askpass.Asker {
	if a.interactive == nil {
		o := a.askOptions()
		if a.options.unlock.headless {
			o.Headless = true
		} else {
			o.ForUser()
			a.console = o.Console
			if a.console != nil {
				a.msg.Err.Via(a.console)
			}
		}
		a.interactive = askpass.New(o)
	}
	return a.interactive
}

// staticAsker only looks at environment and credentials.
func (a *app) staticAsker() *askpass.Asker {
	o := a.askOptions()
	o.Headless = true
	return askpass.New(o)
}

func (a *app) askOptions() askpass.Options {
	return askpass.Options{
		Prefix: "cryptenroll", PINFile: a.options.pinFile, NewPINFile: a.options.newPINFile,
		Environment: a.environment, Messages: a.msg, Icon: "drive-harddisk",
	}
}
