package main

import (
	"context"
	"errors"

	"luksmith/tokens"
)

// changeSeveral enrols one security device on several volumes with one PIN and as
// few touches as it can do. Every volume is opened before the device is asked, and
// each is a transaction of its own: what was written before a failure stays.
func (a *app) changeSeveral(ctx context.Context, paths []string) error {
	multi, ok := a.options.enrollWith.(tokens.MultiEnroller)
	if !ok {
		return usagef("only FIDO2 and PKCS#11 enrolments take several volumes: name one of %d", len(paths))
	}
	if len(a.options.wipe) > 0 || a.options.header != "" || a.options.backup != "" {
		return usagef("--wipe-slot=, --header= and --backup= are for one volume at a time")
	}
	if a.options.unlock.label != "" {
		return usagef("--unlock-slot=%s: with several volumes, name a number", a.options.unlock.label)
	}
	plans := make([]*plan, len(paths))
	for i, path := range paths {
		p, err := a.makePlan(ctx, path)
		if err != nil {
			return err
		}
		plans[i] = p
	}
	a.words = "" // there are several
	if a.options.dryRun {
		return a.printPlans(plans)
	}
	for _, p := range plans {
		if err := a.reporter().refuseCrypttab(p); err != nil {
			return err
		}
	}
	for _, p := range plans {
		for _, text := range p.warnings {
			a.msg.Warning(p.path + ": " + text)
		}
	}
	if err := plans[0].findDevice(ctx); err != nil {
		return err
	}
	ex := a.executor()
	keys, err := ex.unlocker.unlockAll(ctx, plans)
	if err != nil {
		return err
	}
	defer func() {
		for _, op := range keys {
			op.wipe()
		}
	}()
	outcomes, err := ex.enrollAll(ctx, multi, plans, keys)
	if outcomes == nil {
		return err
	}
	r := a.reporter()
	for _, out := range outcomes {
		err = errors.Join(err, r.writeCrypttab(out))
	}
	return errors.Join(err, r.reportAll(outcomes))
}

// unlockAll opens every volume. A PIN that opened one is not asked for again.
func (u *unlocker) unlockAll(ctx context.Context, plans []*plan) (keys []*opened, err error) {
	for _, p := range plans {
		op, err := u.unlock(ctx, p.target())
		if err != nil {
			u.known = nil
			for _, done := range keys {
				done.wipe()
			}
			return nil, err
		}
		if op.pin.Len() > 0 {
			u.known = op
		}
		keys = append(keys, op)
	}
	return keys, nil
}

// enrollAll asks the device once and writes to each volume.
func (ex *executor) enrollAll(ctx context.Context, multi tokens.MultiEnroller, plans []*plan, keys []*opened) ([]*outcome, error) {
	reqs := make([]*tokens.EnrollRequest, len(plans))
	for i, p := range plans {
		reqs[i] = p.request
	}
	results, err := multi.EnrollAll(ctx, reqs, ex.unlocker.askerForPIN())
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, r := range results {
			wipeResult(r)
		}
	}()
	var errs error
	outcomes := make([]*outcome, 0, len(plans))
	for i, p := range plans {
		out := &outcome{plan: p, opened: keys[i].key.Slot}
		e, err := ex.writeResult(ctx, out, keys[i].key, results[i])
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		out.enrolled = e
		outcomes = append(outcomes, out)
	}
	return outcomes, errs
}
