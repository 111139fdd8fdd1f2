package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
)

// writeWithRoom is write. Where the keyslots area is full, what the call wipes or replaces
// goes first, if a keyslot that stays has given the volume key in this call: at no moment
// does the volume hang on less than on that one.
func (ex *executor) writeWithRoom(ctx context.Context, out *outcome, vk *luks2.VolumeKey, e *enrolled) error {
	p := out.plan
	err := ex.write(ctx, p, vk, e)
	if !errors.Is(err, luks2.ErrNoSpace) || out.handout.confirms() {
		return err // nothing goes before the person has typed the new key back
	}
	if len(out.proofs()) == 0 {
		return err
	}
	replaced := p.slotsOf(e.result.Replaces)
	for _, slot := range replaced {
		p.addWipe(slot)
	}
	if !p.makesRoom(err) {
		return err
	}
	if err := ex.wipeSlots(ctx, out); err != nil {
		return err
	}
	ex.unlocker.warn(fmt.Errorf("%s of %s went before the new keyslot was written, for which there was no room", slotsText(out.wiped), p.path))
	p.wipe, p.orphans = nil, nil
	if err := ex.write(ctx, p, vk, e); err != nil {
		return err
	}
	isReplaced := func(s tokens.Slot) bool { return slices.Contains(replaced, s.ID) }
	for _, s := range out.wiped {
		if isReplaced(s) {
			e.replaced = append(e.replaced, s.ID)
		}
	}
	out.wiped = slices.DeleteFunc(out.wiped, isReplaced)
	return nil
}

// makesRoom reports whether the wipe makes room for the keyslot that an error is about.
func (p *plan) makesRoom(err error) bool {
	full, ok := errors.AsType[*luks2.SpaceError](err)
	return ok && full.What == luks2.KeyslotsArea && slices.ContainsFunc(p.wipe, func(s tokens.Slot) bool { return s.Area.Size >= full.Need })
}

// slotsOf are the keyslots of tokens.
func (p *plan) slotsOf(ids []int) (list []int) {
	for _, id := range ids {
		if t, ok := p.header.Token(id); ok {
			list = append(list, t.Keyslots...)
		}
	}
	return list
}
