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
func wipeWords(types tokens.Set) []string {
	words := []string{tokens.KindPassword}
	for _, h := range slices.Backward(types) {
		words = append(words, h.Name())
	}
	return append(words, tokens.KindOther)
}

// planWipe finds the keyslots that --wipe-slot= selects and refuses what would
// lock everybody out.
func (pl *planner) planWipe(ctx context.Context, p *plan) error {
	selected := map[int]bool{}
	for _, word := range pl.o.wipe {
		slots, err := pl.selectSlots(ctx, p, word)
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
	return pl.guardLastSlot(p)
}

// selectSlots are the numbers of the keyslots that one word means. A word that
// means none is not an error, as in systemd-cryptenroll, except a number or label.
// Keyslots of another key than that of the data have to be named, as there.
func (pl *planner) selectSlots(ctx context.Context, p *plan, word string) ([]int, error) {
	if name, ok := strings.CutPrefix(word, "label:"); ok {
		return p.slotsWhere(func(s tokens.Slot) bool { return s.Label == name }, fmt.Errorf("no keyslot has the label %q", name))
	}
	if n, err := strconv.Atoi(word); err == nil {
		return pl.oneSlot(p, n)
	}
	switch {
	case word == "all":
		p.orphans = append(p.orphans, ids(tokens.Orphans(pl.unlocking, p.header))...)
		return p.slotsWhere(func(s tokens.Slot) bool { return !s.Unbound }, nil)
	case word == "empty":
		return p.slotsWithEmptyPassphrase(ctx)
	case slices.Contains(wipeWords(pl.unlocking), word):
		for _, t := range tokens.Orphans(pl.unlocking, p.header) {
			if pl.unlocking.ByType(t.Type).Name() == word {
				p.orphans = append(p.orphans, t.ID)
			}
		}
		return p.slotsWhere(func(s tokens.Slot) bool { return s.Kind == word && !s.Unbound }, nil)
	}
	return p.slotsWhere(func(s tokens.Slot) bool { return s.Label == word && word != "" },
		cli.Unknown(fmt.Sprintf("not one of all, empty, %s, a label or a number", strings.Join(wipeWords(pl.unlocking), ", ")), word, "", append(wipeWords(pl.unlocking), "all", "empty")))
}

// oneSlot is the keyslot of that number, if it is there.
func (pl *planner) oneSlot(p *plan, n int) ([]int, error) {
	if _, ok := p.header.Keyslot(n); ok {
		return []int{n}, nil
	}
	if n < 0 || n >= luks2.MaxKeyslots {
		return nil, usagef("%d is not a keyslot number (0 to %d)", n, luks2.MaxKeyslots-1)
	}
	if err := pl.manner.noSuchSlot(p.path, n, p.header.Keyslots); err != nil {
		return nil, err
	}
	if !slices.Contains(p.missing, n) {
		p.missing = append(p.missing, n)
	}
	return nil, nil
}

func ids(list []luks2.Token) []int {
	var out []int
	for _, t := range list {
		out = append(out, t.ID)
	}
	return out
}

// slotsWhere are the slots for which match holds; none gives the error.
func (v *volume) slotsWhere(match func(tokens.Slot) bool, none error) ([]int, error) {
	var found []int
	for _, s := range v.slots {
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
func (v *volume) slotsWithEmptyPassphrase(ctx context.Context) ([]int, error) {
	var found []int
	for _, s := range v.slots {
		vk, err := v.device.OpenKeyslot(ctx, s.ID, secret.Secret{})
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

// doubt is why what the plan enrols may not count as a proof; see tokens.Doubter.
func (p *plan) doubt() (why string, certain bool) {
	if d, ok := p.enroller.(tokens.Doubter); ok {
		return d.Doubt(p.request)
	}
	return "", false
}

// warnOfDoubt says on what a wipe depends.
func (pl *planner) warnOfDoubt(p *plan) {
	if why, _ := p.doubt(); why != "" && len(p.wipe) > 0 && !pl.o.unprovenWipe {
		p.warnings = append(p.warnings, "the wipe will be refused unless a keyslot that stays opens the volume: the new one may not be provable, because "+why)
	}
}

// guardLastSlot refuses to wipe the last keyslot that is a way in. A slot that is enrolled in
// the same call counts, unless it is known that it cannot be proven: it will have
// given the volume key by then.
func (pl *planner) guardLastSlot(p *plan) error {
	if len(p.wipe) == 0 {
		return nil
	}
	why, certain := p.doubt()
	if p.enroller != nil && p.priority != luks2.PriorityIgnore && (!certain || pl.o.unprovenWipe) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(p.slots), func(s tokens.Slot) bool { return p.wiped(s.ID) })
	if slices.ContainsFunc(left, func(s tokens.Slot) bool { return s.WayIn() }) {
		return nil
	}
	err := fmt.Errorf("%w: wiping %s would leave no keyslot that opens %s", cli.ErrRefused, slotsText(p.wipe), p.path)
	if certain {
		err = errors.Join(err, fmt.Errorf("what is enrolled cannot be proven to open it: %s", why))
	}
	if p.enroller != nil && p.priority == luks2.PriorityIgnore {
		err = errors.Join(err, errors.New("what is enrolled would be tried only when it is named (--priority=ignore)"))
	}
	for _, s := range left {
		err = errors.Join(err, fmt.Errorf("%s stays, but does not count: %s", s.String(), s.State()))
	}
	return tokens.WithHint(err, fmt.Sprintf("enrol a replacement in the same call: %s --recovery-key --wipe-slot=%s %s",
		pl.name, tokens.ShellWord(strings.Join(pl.o.wipe, ",")), p.words()))
}
