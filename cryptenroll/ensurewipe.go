package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/spec"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootrecord"
)

// planWipes decides about the keyslots that the spec does not want.
func (e *ensuring) planWipes(ctx context.Context) error {
	e.wipes = nil
	keys, err := e.keysOfAbsent(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, k := range keys {
			k.Wipe()
		}
	}()
	for i := range e.volume.slots {
		s := &e.volume.slots[i]
		if e.listed(s.Label) || s.Unbound && s.Label == "" { // one of another key has to be named
			continue
		}
		it, err := e.unwanted(ctx, s, keys)
		if err != nil {
			return err
		}
		if it != nil {
			e.wipes = append(e.wipes, it)
		}
	}
	return nil
}

// keysOfAbsent reads the files of opens-with, by their place in the spec. One that is
// gone opens nothing.
func (e *ensuring) keysOfAbsent(ctx context.Context) (map[int]secret.Secret, error) {
	keys := map[int]secret.Secret{}
	for i, a := range e.spec.Absent {
		if a.OpensWith == "" {
			continue
		}
		k, err := readSource(ctx, a.OpensWith, false)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return keys, a.Wrap(err)
		default:
			keys[i] = k
		}
	}
	return keys, nil
}

// unwanted is what becomes of a keyslot that has no label of the spec, nil if it is
// none of the spec's business.
func (e *ensuring) unwanted(ctx context.Context, s *tokens.Slot, keys map[int]secret.Secret) (*item, error) {
	if label, ok := strings.CutSuffix(s.Label, spec.Undelivered); ok && e.listed(label) {
		return e.unless(false, s, "nobody was given its key"), nil
	}
	if label, ok := strings.CutSuffix(s.Label, spec.Replaced); ok && e.listed(label) {
		i := slices.IndexFunc(e.spec.Keyslots, func(k spec.Keyslot) bool { return k.Label == label })
		return e.unless(e.spec.Keyslots[i].KeepOld, s, "it was replaced"), nil
	}
	for i, a := range e.spec.Absent {
		matches, err := e.matches(ctx, s, a, keys[i])
		if err != nil {
			return nil, err
		}
		if matches {
			return e.unless(a.AfterBoot, s, "line "+fmt.Sprint(a.Line)+" of the spec wants it to be absent"), nil
		}
	}
	switch e.spec.Unlisted {
	case spec.Wipe:
		return e.unless(false, s, "the spec does not list it"), nil
	case spec.Refuse:
		it := &item{slot: s}
		it.refuse(tokens.WithHint(fmt.Errorf("%w: the spec does not list %s of %s", cli.ErrRefused, s.String(), e.volume.path),
			"list it, or say what becomes of it with absent or unlisted"))
		return it, nil
	}
	return nil, nil
}

// matches reports whether a keyslot is one of those that are to be absent.
func (e *ensuring) matches(ctx context.Context, s *tokens.Slot, a spec.Absent, key secret.Secret) (bool, error) {
	switch {
	case a.Label != "":
		return s.Label == a.Label, nil
	case a.Type != "":
		return s.Kind == a.Type, nil
	case key.Len() == 0 || !s.Usable():
		return false, nil
	}
	if opens, err := e.volume.opensSlot(ctx, s.ID, key); opens || err != nil {
		return opens, err
	}
	if b := key.Bytes(); len(b) < 2 || b[len(b)-1] != '\n' {
		return false, nil
	}
	line := key.Clone()
	defer line.Wipe()
	line.Truncate(line.Len() - 1)
	return e.volume.opensSlot(ctx, s.ID, line)
}

// unless wipes a keyslot, or keeps it until a boot used what takes its place.
func (e *ensuring) unless(afterBoot bool, s *tokens.Slot, why string) *item {
	it := &item{slot: s, action: actionWiped, reason: why}
	if afterBoot && !e.booted() {
		it.action, it.reason = actionKept, "until the volume was opened in a boot with a keyslot of the spec"
	}
	return it
}

// booted reports whether this boot opened the volume with a keyslot of the spec.
func (e *ensuring) booted() bool {
	boot, err := bootrecord.Current(e.app.root)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(boot.Opened(e.volume.header.UUID), func(u bootrecord.Unlock) bool {
		if u.Opened.Keyslot == nil {
			return false
		}
		s, ok := e.volume.slot(*u.Opened.Keyslot)
		return ok && e.listed(s.Label) && s.Label == u.Opened.Label && !madeAfter(&s, u.Time)
	})
}

// madeAfter reports whether the keyslot has the number of one that is gone.
func madeAfter(s *tokens.Slot, at time.Time) bool {
	var extra tokens.Extra
	for _, t := range s.Tokens {
		_ = tokens.ReadExtra(t.Raw, &extra) // without it the keyslot counts as old
	}
	created, err := time.Parse(time.RFC3339, extra.Created)
	return err == nil && created.After(at)
}

// wipeUnwanted wipes what is not wanted: last, when everything that is wanted is
// there, and on the proof that one of that opens the volume.
func (e *ensuring) wipeUnwanted(ctx context.Context) error {
	if err := e.planWipes(ctx); err != nil {
		return err
	}
	p := &plan{volume: e.volume}
	for _, it := range e.wipes {
		if it.action == actionWiped {
			p.addWipe(it.slot.ID)
		}
	}
	if len(p.wipe) == 0 {
		return nil
	}
	out := &outcome{plan: p, opened: -1, known: e.proofs(true)}
	if len(out.proofs()) == 0 {
		return e.refuseWipes(tokens.WithHint(fmt.Errorf("%w: no keyslot of the spec has opened %s in this call, so %s stays", cli.ErrRefused, e.volume.path, slotsText(p.wipe)),
			"name one in unlock, such as a key-file, or on the command line: --unlock-fido2-device=auto"))
	}
	if err := e.executor(nil).wipeSlots(ctx, out); err != nil {
		return e.refuseWipes(err)
	}
	e.changed = true
	return e.reload(ctx)
}

// refuseWipes notes that nothing was wiped.
func (e *ensuring) refuseWipes(err error) error {
	for _, it := range e.wipes {
		if it.action == actionWiped {
			it.refuse(err)
		}
	}
	return err
}

// proofs are the keyslots that gave the volume key in this call.
func (e *ensuring) proofs(listedOnly bool) (list []luks2.Keyslot) {
	for _, p := range e.proven {
		if p.listed || !listedOnly {
			list = append(list, p.slot)
		}
	}
	return list
}
