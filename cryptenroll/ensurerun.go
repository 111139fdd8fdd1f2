package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/internal/askpass"
	"luksmith/internal/spec"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

// carryOut does what the survey found. Each keyslot is an update of its own, so that a
// run that is ended anywhere leaves a volume from which the next run goes on. One that
// fails leaves the others to be made, and what is not wanted where it is.
func (e *ensuring) carryOut(ctx context.Context) error {
	if err := e.refusals(); err != nil {
		e.stop("nothing is done, because of what is refused")
		return err
	}
	if err := e.system.prepare(); err != nil {
		return err
	}
	if e.needsKey() {
		if _, err := e.open(ctx); err != nil {
			e.stop("nothing opened the volume")
			return err
		}
	}
	var errs error
	for _, it := range e.items {
		var err error
		switch it.action {
		case actionKept:
			err = e.complete(it)
		case actionMade, actionReplaced:
			err = e.enroll(ctx, it)
		case actionChanged:
			err = e.setPriority(ctx, it)
		}
		if err != nil {
			it.refuse(err)
			errs = errors.Join(errs, fmt.Errorf("keyslot %q of %s: %w", it.Label, e.volume.path, err))
		}
		if ctx.Err() != nil {
			return errs
		}
	}
	if errs != nil {
		e.keepUnwanted("not all keyslots of the spec are there")
		return errs
	}
	changed, err := e.system.bring(ctx)
	e.changed = e.changed || changed
	if err != nil {
		e.keepUnwanted("the system was not brought into the state that the spec describes")
		return err
	}
	if err := e.openForProof(ctx); err != nil {
		return e.refuseWipes(err)
	}
	return e.wipeUnwanted(ctx)
}

// stop notes that nothing is done, since something cannot be.
func (e *ensuring) stop(why string) {
	for _, it := range e.items {
		if it.writes() {
			it.action, it.reason = actionRefused, why
		}
	}
	e.keepUnwanted(why)
}

// needsKey reports whether a keyslot is to be made.
func (e *ensuring) needsKey() bool {
	return slices.ContainsFunc(e.items, func(it *item) bool { return it.action == actionMade || it.action == actionReplaced })
}

func (e *ensuring) keepUnwanted(why string) {
	for _, it := range e.wipes {
		if it.action == actionWiped {
			it.action, it.reason = actionKept, why
		}
	}
}

// openForProof opens the volume when something is to be wiped and nothing has opened
// it yet.
func (e *ensuring) openForProof(ctx context.Context) error {
	wipes := false
	for _, it := range e.wipes {
		wipes = wipes || it.action == actionWiped
	}
	if !wipes || len(e.proofs(true)) > 0 {
		return nil
	}
	_, err := e.open(ctx)
	return err
}

// executor is one whose questions are those of an entry, if there is one.
func (e *ensuring) executor(it *item) *executor {
	ex := &executor{unlocker: e.app.unlocker(), enrolling: e.app.enrolling}
	if it != nil {
		ex.enrolling, ex.unlocker.person = it.types, it.person
	}
	return ex
}

// enroll makes the keyslot of an entry, and wipes the one that it replaces once the
// new one has opened the volume.
func (e *ensuring) enroll(ctx context.Context, it *item) error {
	p := &plan{volume: e.volume, enroller: it.enroller(e.volume), what: it.what, priority: it.priority, needsKey: true, sole: true}
	if !it.handsOut() { // else a delivery gives the labels
		p.renames = map[int]string{}
		for _, old := range it.ids() {
			p.renames[old] = it.Label + spec.Replaced
			if !it.KeepOld {
				p.addWipe(old)
			}
		}
	}
	p.request = it.request(e.volume, it.compat, it.ids())
	out := &outcome{plan: p, opened: -1, known: e.proofs(false), handout: &handout{app: e.app, plan: p}}
	defer out.wipe()
	carryOut := e.executor(it).carryOut
	if it.handsOut() {
		carryOut = e.delivery(it).carryOut
	}
	err := carryOut(ctx, out, e.opened)
	if out.enrolled != nil {
		e.changed = true
		it.result, it.wiped = out.enrolled, len(out.wiped) > 0
		for _, made := range out.enrolled.all() {
			if made.proven {
				e.proven = append(e.proven, proof{made.keyslot, true})
			}
		}
		err = errors.Join(err, e.reload(ctx))
	}
	return err
}

// setPriority changes nothing else of a keyslot.
func (e *ensuring) setPriority(ctx context.Context, it *item) error {
	err := e.volume.device.Update(ctx, func(tx *luks2.Tx) error {
		for _, s := range it.slots() {
			if !isThere(&s.Keyslot, tx.Header()) {
				return fmt.Errorf("%s: %w", s.String(), luks2.ErrNoKeyslot)
			}
			if err := tx.SetPriority(s.ID, it.priority); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	e.changed = true
	return e.reload(ctx)
}

// open opens the volume, once in a run: by the options of the command line if they
// name a way, else by the ways of the spec in their order.
func (e *ensuring) open(ctx context.Context) (*opened, error) {
	if e.opened != nil {
		return e.opened, nil
	}
	t := &target{volume: e.volume, last: e.goes}
	op, err := e.openBy(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", e.volume.path, err)
	}
	e.opened = op
	if k, ok := e.volume.header.Keyslot(op.key.Slot); ok {
		s, _ := e.volume.slot(k.ID)
		e.proven = append(e.proven, proof{*k, e.listed(s.Label)})
	}
	return op, nil
}

// goes reports whether a keyslot is to be wiped or replaced: it is no proof.
func (e *ensuring) goes(slot int) bool {
	for _, it := range append(e.items, e.wipes...) {
		if (it.action == actionWiped || it.action == actionReplaced) && slices.Contains(it.ids(), slot) {
			return true
		}
	}
	return false
}

func (e *ensuring) openBy(ctx context.Context, t *target) (*opened, error) {
	u := e.app.unlocker()
	if err := u.how.resolve(e.volume); err != nil {
		return nil, err
	}
	if len(u.how.methods()) > 0 || u.how.slot != luks2.AnySlot {
		u.person = e.person()
		return u.unlock(ctx, t)
	}
	ways := e.spec.Unlock
	if len(ways) == 0 {
		ways = []spec.Way{{Place: e.spec.Place, By: spec.Headless}}
	}
	var errs error
	for _, w := range ways {
		op, err := e.by(ctx, t, w)
		if err == nil && op != nil || ctx.Err() != nil {
			return op, err
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

// person is asked only where the spec says so and a terminal is there.
func (e *ensuring) person() *asking {
	asks := false
	for _, w := range e.spec.Unlock {
		asks = asks || w.By == spec.Ask
	}
	o := &e.app.options
	return &asking{pinFile: o.pinFile, headless: !asks, terminalOnly: true, environment: e.app.environment, msg: e.app.msg}
}

// by opens the volume by one way of the spec.
func (e *ensuring) by(ctx context.Context, t *target, w spec.Way) (*opened, error) {
	var errs error
	u := &unlocker{types: e.app.types(), person: e.person(), warn: func(err error) { errs = errors.Join(errs, err) }}
	u.how.slotName = anySlot()
	defer u.person.close()
	op, err := e.tryWay(ctx, u, t, w)
	if err != nil {
		return nil, errors.Join(errs, w.Wrap(err))
	}
	return op, nil
}

func (e *ensuring) tryWay(ctx context.Context, u *unlocker, t *target, w spec.Way) (*opened, error) {
	switch w.By {
	case spec.KeyFile:
		u.how.keyFile = w.Value
	case spec.Credential:
		u.how.keyFile = credentialPath(w.Value)
	case spec.File:
		return e.byFile(ctx, u, t, w.Value)
	case spec.Keyring:
		u.person.cache, u.person.environment = askpass.CacheReadOnly, askpass.TakeEnvironment()
		op, err := u.byKeyring(ctx, t, w.Value)
		if op == nil && err == nil {
			err = fmt.Errorf("no key %q in the kernel keyring opens it: %w", w.Value, luks2.ErrNoKey)
		}
		return op, err
	case spec.Empty:
		return u.tryPassphrase(ctx, t, secret.Secret{}, "empty passphrase")
	case spec.Headless:
		return u.headless(ctx, t)
	case spec.Ask:
		return u.byPerson(ctx, t, nil)
	default:
		if err := e.chooseType(u, w); err != nil {
			return nil, err
		}
	}
	return u.unlock(ctx, t)
}

// byFile opens with the line in a file, as a person would type it.
func (e *ensuring) byFile(ctx context.Context, u *unlocker, t *target, path string) (*opened, error) {
	s, err := readSource(ctx, path, true)
	if err != nil {
		return nil, err
	}
	defer s.Wipe()
	list := recovery.Candidates(s)
	defer secret.WipeAll(list)
	return u.tryCandidates(ctx, t, list, "passphrase in "+path)
}

// chooseType has a token type open the volume, with the device of the spec.
func (e *ensuring) chooseType(u *unlocker, w spec.Way) error {
	h := u.types.ByName(w.By)
	u.how.with, _ = h.(tokens.Unlocker)
	for _, opt := range h.Options() {
		if opt.Place&tokens.Unlocking != 0 && opt.Action == tokens.SelectUnlock && w.Value != "" {
			return opt.Set(w.Value)
		}
	}
	return nil
}
