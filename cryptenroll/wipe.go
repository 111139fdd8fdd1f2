package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// wipeWords are the words of --wipe-slot= that select by type, besides all, empty,
// numbers and label:NAME.
var wipeWords = []string{"password", "recovery", "pkcs11", "fido2", "tpm2", "other"}

// planWipe finds the keyslots that --wipe-slot= selects and refuses what would
// lock everybody out.
func (a *app) planWipe(ctx context.Context, p *plan) error {
	selected := map[int]bool{}
	for _, word := range a.options.wipe {
		slots, err := a.selectSlots(ctx, p, word)
		if err != nil {
			return fmt.Errorf("--wipe-slot=%s: %w", word, err)
		}
		for _, s := range slots {
			selected[s] = true
		}
	}
	for _, s := range p.slots {
		if selected[s.ID] {
			p.wipe = append(p.wipe, s)
		}
	}
	return a.guardLastSlot(p)
}

// selectSlots are the numbers of the keyslots that one word means. A word that
// means none is no error, as in systemd-cryptenroll, except a number or label.
func (a *app) selectSlots(ctx context.Context, p *plan, word string) ([]int, error) {
	if name, ok := strings.CutPrefix(word, "label:"); ok {
		return p.slotsWhere(func(s tokens.Slot) bool { return s.Label == name }, fmt.Errorf("no keyslot has the label %q", name))
	}
	if n, err := strconv.Atoi(word); err == nil {
		return p.slotsWhere(func(s tokens.Slot) bool { return s.ID == n }, luks2.ErrNoKeyslot)
	}
	switch {
	case word == "all":
		p.orphans = append(p.orphans, ids(tokens.Orphans(a.unlocking, p.header))...)
		return p.slotsWhere(func(tokens.Slot) bool { return true }, nil)
	case word == "empty":
		return p.slotsWithEmptyPassphrase(ctx)
	case slices.Contains(wipeWords, word):
		for _, t := range tokens.Orphans(a.unlocking, p.header) {
			if a.unlocking.ByType(t.Type).Name() == word {
				p.orphans = append(p.orphans, t.ID)
			}
		}
		return p.slotsWhere(func(s tokens.Slot) bool { return s.Kind == word }, nil)
	}
	return nil, usagef("want all, empty, %s, label:NAME or a number", strings.Join(wipeWords, ", "))
}

func ids(list []luks2.Token) []int {
	var out []int
	for _, t := range list {
		out = append(out, t.ID)
	}
	return out
}

// slotsWhere are the slots for which match holds; none gives the error.
func (p *plan) slotsWhere(match func(tokens.Slot) bool, none error) ([]int, error) {
	var found []int
	for _, s := range p.slots {
		if match(s) {
			found = append(found, s.ID)
		}
	}
	if found == nil {
		return nil, none
	}
	return found, nil
}

// slotsWithEmptyPassphrase tries the empty passphrase on every slot.
func (p *plan) slotsWithEmptyPassphrase(ctx context.Context) ([]int, error) {
	var found []int
	for _, s := range p.slots {
		vk, err := p.device.OpenKeyslot(ctx, s.ID, secret.Secret{})
		switch {
		case err == nil:
			vk.Wipe()
			found = append(found, s.ID)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
	}
	return found, nil
}

// guardLastSlot refuses to wipe the last usable keyslot. A slot that is enrolled
// in the same call counts: it will have been opened from the disk by then.
func (a *app) guardLastSlot(p *plan) error {
	if len(p.wipe) == 0 || p.enroller != nil {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(p.slots), func(s tokens.Slot) bool { return p.wiped(s.ID) })
	if slices.ContainsFunc(left, func(s tokens.Slot) bool { return s.Usable() }) {
		return nil
	}
	err := fmt.Errorf("%w: wiping %s would leave no keyslot that opens %s", cli.ErrRefused, slotsText(p.wipe), p.path)
	for _, s := range left {
		err = errors.Join(err, fmt.Errorf("%s stays, but cannot be used: %s", slotText(s.ID, s.Kind, s.Label), s.Problem))
	}
	return tokens.WithHint(err, fmt.Sprintf("enrol a replacement in the same call: %s --recovery-key --wipe-slot=%s %s",
		a.name, strings.Join(a.options.wipe, ","), p.path))
}

// confirmWipe asks on a terminal. Scripts, --yes and systemd's name are not asked.
func (a *app) confirmWipe(ctx context.Context, p *plan) error {
	if len(p.wipe) == 0 || a.options.yes || a.systemd {
		return nil
	}
	yes, err := a.asker().Confirm(ctx, fmt.Sprintf("Wipe %s of %s for good?", slotsText(p.wipe), p.path))
	if errors.Is(err, tokens.ErrNoPrompt) {
		return nil
	}
	if err != nil {
		return err
	}
	if !yes {
		return fmt.Errorf("%w: nothing was changed", tokens.ErrCancelled)
	}
	return nil
}

// proofs are the keyslots that opened the volume in this run and stay: the one that
// it was unlocked with, and the one just enrolled.
func (out *outcome) proofs() []luks2.Keyslot {
	var list []luks2.Keyslot
	if e := out.enrolled; e != nil && e.proven {
		list = append(list, e.keyslot)
	}
	if k, ok := out.plan.header.Keyslot(out.opened); ok && !out.plan.wiped(k.ID) {
		list = append(list, *k)
	}
	return list
}

// proveRemaining refuses a wipe unless a keyslot that stays is known to open the
// volume.
func (a *app) proveRemaining(out *outcome) error {
	p := out.plan
	if len(p.wipe) == 0 || a.options.unprovenWipe || len(out.proofs()) > 0 {
		return nil
	}
	if a.systemd {
		a.msg.Warning("nothing proved in this run that a keyslot that stays can open the volume")
		return nil
	}
	err := fmt.Errorf("%w: nothing proved that a keyslot which stays opens %s", cli.ErrRefused, p.path)
	if out.opened >= 0 {
		err = fmt.Errorf("%w: keyslot %d opened %s, but it is to be wiped itself", cli.ErrRefused, out.opened, p.path)
	}
	return tokens.WithHint(err, "unlock with another keyslot (--unlock-slot=N), or override with --force-unproven-wipe")
}

// wipeSlots removes the keyslots of the plan with their tokens, as one update.
// Slots that somebody else removed meanwhile are not missed.
func (a *app) wipeSlots(ctx context.Context, out *outcome) error {
	p := out.plan
	if len(p.wipe) == 0 && len(p.orphans) == 0 {
		return nil
	}
	var wiped []tokens.Slot
	err := p.device.Update(ctx, func(tx *luks2.Tx) error {
		wiped = nil
		if err := a.keepsWayIn(out, tx.Header()); err != nil {
			return err
		}
		for _, s := range p.wipe {
			if !isThere(&s.Keyslot, tx.Header()) {
				continue
			}
			if err := removeSlotAndTokens(tx, s.ID); err != nil {
				return err
			}
			wiped = append(wiped, s)
		}
		return removeOrphans(tx, p.orphans)
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
func (a *app) keepsWayIn(out *outcome, now *luks2.Header) error {
	p := out.plan
	if len(p.wipe) == 0 {
		return nil
	}
	for _, proof := range out.proofs() {
		if isThere(&proof, now) {
			return nil
		}
	}
	if !a.options.unprovenWipe && !a.systemd {
		return fmt.Errorf("%w: the keyslot that proved to open the volume was removed meanwhile", cli.ErrRefused)
	}
	for _, s := range tokens.Slots(a.unlocking, now) {
		going := slices.ContainsFunc(p.wipe, func(w tokens.Slot) bool { return w.ID == s.ID && sameSlot(&w.Keyslot, &s.Keyslot) })
		if !going && s.Usable() {
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

// removeSlotAndTokens removes a keyslot and every token that names only it.
func removeSlotAndTokens(tx *luks2.Tx, slot int) error {
	for _, t := range tx.Header().TokensOf(slot) {
		if len(t.Keyslots) == 1 {
			if err := tx.RemoveToken(t.ID); err != nil {
				return err
			}
		}
	}
	return tx.RemoveKeyslot(slot)
}

func removeOrphans(tx *luks2.Tx, orphans []int) error {
	for _, id := range orphans {
		t, ok := tx.Header().Token(id)
		if !ok || len(t.Keyslots) > 0 {
			continue
		}
		if err := tx.RemoveToken(id); err != nil {
			return err
		}
	}
	return nil
}
