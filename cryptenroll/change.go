package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

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
		if a.options.json.On() {
			return a.reporter().report(&outcome{plan: p, opened: luks2.AnySlot})
		}
		a.manner.nothingToWipe(a.msg, p, strings.Join(a.options.wipe, ","))
		return nil
	}
	return a.carryOut(ctx, p)
}

// carryOut prints a plan, or asks and executes it, and reports.
func (a *app) carryOut(ctx context.Context, p *plan) error {
	if a.options.conflictError != nil {
		return a.options.conflictError
	}
	if a.options.dryRun {
		return a.printPlans([]*plan{p})
	}
	if err := a.reporter().refuseCrypttab(p); err != nil {
		return err
	}
	for _, text := range p.warnings {
		a.msg.Warning(text)
	}
	if err := a.confirmWipe(ctx, p); err != nil {
		return err
	}
	out := &outcome{plan: p, opened: -1}
	defer out.wipe()
	handout, err := a.prepareHandout(ctx, p)
	if err != nil {
		return err
	}
	defer handout.discard()
	out.handout = handout
	if err := a.executor().execute(ctx, out); err != nil {
		err = out.ended(ctx, err)
		if handout.begun {
			err = errors.Join(err, a.reporter().endDocument(out, err))
		}
		return err
	}
	r := a.reporter()
	unwritten := r.writeCrypttab(out)
	return errors.Join(unwritten, a.manner.report(r, out))
}

// confirmWipe asks on a terminal. Scripts, --yes and systemd's name are not asked.
func (a *app) confirmWipe(ctx context.Context, p *plan) error {
	if len(p.wipe) == 0 || a.options.yes || !a.manner.confirmsWipe() {
		return nil
	}
	yes, err := a.asking().asker().Confirm(ctx, fmt.Sprintf("Wipe %s of %s for good?", slotsText(p.wipe), p.path))
	if errors.Is(err, tokens.ErrNoPrompt) {
		return nil
	}
	if err != nil {
		return err
	}
	if !yes {
		return fmt.Errorf("%w; nothing was changed", tokens.ErrCancelled)
	}
	return nil
}
