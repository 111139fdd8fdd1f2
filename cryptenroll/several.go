package main

import (
	"context"
	"errors"
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
)

// changeSeveral enrols one security device on several volumes with one PIN and as
// few touches as it can do. Every volume is opened before the device is asked, and
// each is a transaction of its own: what was written before a failure stays.
func (a *app) changeSeveral(ctx context.Context, paths []string) error {
	multi, ok := a.options.enrollWith.(tokens.MultiEnroller)
	if !ok {
		return usagef("%d devices: only enrolments that serve several volumes at once take more than one", len(paths))
	}
	if len(a.options.wipe) > 0 || a.options.header != "" || a.options.backup != "" {
		return usagef("--wipe-slot=, --header= and --backup= are for one volume at a time")
	}
	plans := make([]*plan, len(paths))
	for i, path := range paths {
		p, err := a.makePlan(ctx, path)
		if err != nil {
			return err
		}
		plans[i] = p
	}
	if a.options.dryRun {
		return a.printPlans(plans)
	}
	for _, p := range plans {
		for _, text := range p.warnings {
			a.msg.Warning(p.path + ": " + text)
		}
	}
	keys, err := a.unlockAll(ctx, plans)
	if err != nil {
		return err
	}
	defer func() {
		a.known = nil
		for _, op := range keys {
			op.wipe()
		}
	}()
	return a.enrollAll(ctx, multi, plans, keys)
}

// unlockAll opens every volume. A PIN that opened one is not asked for again.
func (a *app) unlockAll(ctx context.Context, plans []*plan) (keys []*opened, err error) {
	for _, p := range plans {
		op, err := a.unlock(ctx, p)
		if err != nil {
			a.known = nil
			for _, done := range keys {
				done.wipe()
			}
			return nil, err
		}
		if op.pin.Len() > 0 {
			a.known = op
		}
		keys = append(keys, op)
	}
	return keys, nil
}

// enrolAll asks the device once and writes to each volume.
func (a *app) enrollAll(ctx context.Context, multi tokens.MultiEnroller, plans []*plan, keys []*opened) error {
	reqs := make([]*tokens.EnrollRequest, len(plans))
	for i, p := range plans {
		reqs[i] = p.request
	}
	results, err := multi.EnrollAll(ctx, reqs, a.askerForPIN())
	if err != nil {
		return err
	}
	defer func() {
		for _, r := range results {
			r.Passphrase.Wipe()
		}
	}()
	var errs error
	outcomes := make([]*outcome, 0, len(plans))
	for i, p := range plans {
		e, err := a.writeResult(ctx, p, keys[i].key, results[i])
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		outcomes = append(outcomes, &outcome{plan: p, opened: keys[i].key.Slot, enrolled: e})
	}
	return errors.Join(errs, a.reportAll(outcomes))
}

// writeResult puts one result of an enrolment on its volume and proves it.
func (a *app) writeResult(ctx context.Context, p *plan, vk *luks2.VolumeKey, result *tokens.Enrollment) (*enrolled, error) {
	e := &enrolled{slot: -1, token: result.Unchanged, result: result}
	if result.Unchanged >= 0 {
		t, ok := p.header.Token(result.Unchanged)
		if !ok || len(t.Keyslots) != 1 {
			return nil, fmt.Errorf("token %d of %s: %w", result.Unchanged, p.path, luks2.ErrNoToken)
		}
		k, _ := p.header.Keyslot(t.Keyslots[0])
		e.slot, e.keyslot, e.proven = k.ID, *k, true
		p.keep(e.slot)
		return e, nil
	}
	if err := a.write(ctx, p, vk, e); err != nil {
		return nil, fmt.Errorf("enrolling on %s: %w", p.path, err)
	}
	if err := p.prove(ctx, e); err != nil {
		return e, a.takeBack(p, e, err)
	}
	return e, nil
}

// reportAll is report for several volumes; with --json one list.
func (a *app) reportAll(outcomes []*outcome) error {
	if !a.options.json.On() {
		for _, out := range outcomes {
			if err := a.report(out); err != nil {
				return err
			}
		}
		return nil
	}
	views := make([]changeView, len(outcomes))
	for i, out := range outcomes {
		views[i] = a.view(out)
	}
	return a.out.JSON(a.options.json, views)
}
