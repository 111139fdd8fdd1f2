package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// proofs are the keyslots that gave the volume key in this run and stay: the one
// that it was unlocked with, and the one just enrolled or found in place.
func (out *outcome) proofs() []luks2.Keyslot {
	var list []luks2.Keyslot
	if e := out.enrolled; e != nil {
		for _, made := range e.all() {
			if made.proven {
				list = append(list, made.keyslot)
			}
		}
	}
	if k, ok := out.plan.header.Keyslot(out.opened); ok && !out.plan.wiped(k.ID) {
		list = append(list, *k)
	}
	for _, seen := range out.known {
		if isThere(&seen, out.plan.header) && !out.plan.wiped(seen.ID) {
			list = append(list, seen)
		}
	}
	// One that opened because it was named is no way in for those who do not know.
	return slices.DeleteFunc(list, func(k luks2.Keyslot) bool { return k.Priority == luks2.PriorityIgnore })
}

// mayReplace refuses an enrolment, before anything is written, whose wipe would be
// refused after it, or that would take the place of the only keyslot that gave the
// volume key.
func (ex *executor) mayReplace(out *outcome, e *enrolled) error {
	p := out.plan
	replaces := func(slot int) bool {
		return slices.ContainsFunc(e.result.Replaces, func(id int) bool {
			t, ok := p.header.Token(id)
			return ok && slices.Contains(t.Keyslots, slot)
		})
	}
	if len(p.wipe)+len(e.result.Replaces) == 0 || ex.unproven || e.result.Proven && p.priority != luks2.PriorityIgnore {
		return nil
	}
	if slices.ContainsFunc(out.proofs(), func(k luks2.Keyslot) bool { return !replaces(k.ID) }) {
		return nil
	}
	return out.unprovenWipe(e.result)
}

// unprovenWipe says why nothing is wiped on the strength of what was enrolled.
func (out *outcome) unprovenWipe(r *tokens.Enrollment) error {
	p := out.plan
	why := fmt.Sprintf("%s cannot be proven to (%s)", cmp.Or(r.Made, p.what), cmp.Or(r.Doubt, "its device did not give the key back"))
	switch e := out.enrolled; {
	case p.priority == luks2.PriorityIgnore:
		why = cmp.Or(r.Made, p.what) + " would be tried only when it is named (--priority=ignore)"
	case e != nil && e.keyslot.Priority == luks2.PriorityIgnore:
		why = fmt.Sprintf("keyslot %d, enrolled already, is tried only when it is named (priority ignore)", e.slot)
	}
	err := fmt.Errorf("%w: nothing that stays has opened %s in this call: %s; nothing was changed", cli.ErrRefused, p.path, why)
	return tokens.WithHint(err, "enrol without wiping, and wipe when the new keyslot has opened the volume; or unlock with a keyslot that stays (--unlock-slot=N); "+
		"--force-unproven-wipe overrides")
}

// proveRemaining refuses a wipe unless a keyslot that stays is known to open the
// volume.
func (ex *executor) proveRemaining(out *outcome) error {
	p := out.plan
	if len(p.wipe) == 0 || ex.unproven || len(out.proofs()) > 0 {
		return nil
	}
	if e := out.enrolled; e != nil {
		return out.unprovenWipe(e.result)
	}
	err := fmt.Errorf("%w: nothing proved that a keyslot which stays opens %s", cli.ErrRefused, p.path)
	if s, ok := p.slot(out.opened); ok {
		why := "is to be wiped itself"
		if !p.wiped(s.ID) {
			why = "is " + s.State()
		}
		err = fmt.Errorf("%w: %s opened %s, but %s", cli.ErrRefused, s.String(), p.path, why)
	}
	return tokens.WithHint(err, "unlock with another keyslot (--unlock-slot=N), or override with --force-unproven-wipe")
}

// wipeSlots removes the keyslots of the plan with their tokens, as one update.
// Slots that somebody else removed meanwhile are not missed.
func (ex *executor) wipeSlots(ctx context.Context, out *outcome) error {
	p := out.plan
	if len(p.wipe) == 0 && len(p.orphans) == 0 {
		return nil
	}
	var wiped []tokens.Slot
	err := p.device.Update(ctx, func(tx *luks2.Tx) error {
		wiped = nil
		before := tx.Header()
		if err := ex.keepsWayIn(out, before); err != nil {
			return err
		}
		for _, s := range p.wipe {
			if !isThere(&s.Keyslot, before) {
				continue
			}
			if err := tx.RemoveKeyslotAndTokens(s.ID); err != nil {
				return err
			}
			wiped = append(wiped, s)
		}
		return tokens.RemoveTokens(tx, ex.unlocker.types, before, p.orphans)
	})
	if err != nil {
		return fmt.Errorf("wiping %s of %s: %w", slotsText(p.wipe), p.path, err)
	}
	out.wiped = wiped
	return nil
}

// keepsWayIn looks at the header that is about to be changed: what proved the wipe
// safe must still be there. Another run may have wiped that keyslot meanwhile, on
// the proof of one that is to go here. Without a proof some usable slot must stay.
func (ex *executor) keepsWayIn(out *outcome, now *luks2.Header) error {
	p := out.plan
	if len(p.wipe) == 0 {
		return nil
	}
	for _, proof := range out.proofs() {
		if isThere(&proof, now) {
			return nil
		}
	}
	if !ex.unproven {
		return fmt.Errorf("%w: the keyslot that proved to open the volume was removed meanwhile", cli.ErrRefused)
	}
	for _, s := range tokens.Slots(ex.unlocker.types, now) {
		going := slices.ContainsFunc(p.wipe, func(w tokens.Slot) bool { return w.ID == s.ID && sameSlot(&w.Keyslot, &s.Keyslot) })
		if !going && s.WayIn() {
			return nil
		}
	}
	return fmt.Errorf("%w: no keyslot would be left that opens the volume", cli.ErrRefused)
}

// isThere reports whether a header still has a keyslot that was seen before.
func isThere(seen *luks2.Keyslot, now *luks2.Header) bool {
	k, ok := now.Keyslot(seen.ID)
	return ok && sameSlot(k, seen)
}

// sameSlot reports whether a number still means the keyslot that was planned: the
// salt is random for every slot.
func sameSlot(a, b *luks2.Keyslot) bool { return slices.Equal(a.KDF.Salt, b.KDF.Salt) }
