package main

import (
	"context"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain"
)

// leftOver is a keyslot that follow made and no boot entry leads to any more.
type leftOver struct {
	slot tokens.Slot
	id   int // of the token
	why  string
	of   *followState // that is to lose it, nil if none needs it
}

// leftOvers are the keyslots that may go once something else has opened the volume:
// tokens of ours, for this machine's system, that neither the running state nor a boot
// entry needs. Where an entry's value cannot be told, what it has stays.
func (p *followPlan) leftOvers(l *outlook) (list []leftOver) {
	if !slices.ContainsFunc(p.states, func(s *followState) bool { return s.running || s.values != nil && s.entry.ID == l.Boot.Entry.ID }) {
		return nil // what is running is not on the partitions that are mounted
	}
	for i := range p.tokens {
		t := &p.tokens[i]
		if t.Entry == nil || !t.Plain || !p.own(t.Entry.MachineID) || len(t.Token.Keyslots) != 1 {
			continue
		}
		s, ok := p.slot(t.Token.Keyslots[0])
		if !ok || p.uses(s.ID) || p.isRunning(t, l) {
			continue
		}
		if why := p.whyLeft(t, l); why != "" {
			list = append(list, leftOver{s, t.Token.ID, why, nil})
		}
	}
	return list
}

// uses reports whether an entry has the keyslot.
func (p *followPlan) uses(slot int) bool {
	return slices.ContainsFunc(p.states, func(s *followState) bool { return s.slot == slot })
}

// isRunning reports whether a token opens in the boot that is running, or may. One for
// other PCRs than are wanted now counts only as long as there is no better one.
func (p *followPlan) isRunning(t *tpm2.BootToken, l *outlook) bool {
	values := l.running(t.PCRs)
	if values == nil {
		return true
	}
	better := func(s *followState) bool {
		return s.running && s.slot != luks2.AnySlot && !slices.Equal(s.pcrs, t.PCRs)
	}
	return t.For(values) && !slices.ContainsFunc(p.states, better)
}

// whyLeft is why no entry leads to the state of a token; "" if one does or may.
func (p *followPlan) whyLeft(t *tpm2.BootToken, l *outlook) string {
	found := false
	for i := range l.Next {
		n := &l.Next[i]
		if n.Other {
			continue
		}
		values, _, _ := valuesOf(n, t.PCRs)
		s := p.states[i]
		switch {
		case n.Entry.ID != t.Entry.ID && !t.For(values):
			continue
		case values == nil, s.doubtful, t.For(values) && (slices.Equal(s.pcrs, t.PCRs) || !s.covered()), fitsOtherwise(n, t.PCRs, t.For):
			return ""
		}
		found = true
	}
	switch {
	case found:
		return "the files of its entry are others now"
	case t.Entry.Extended && len(l.Host.System.Others) == 0:
		return "" // its partition is not mounted
	}
	return "its entry is gone"
}

// onOtherPartition reports whether an entry is on another partition than the ESP.
func onOtherPartition(e *bootchain.Entry, l *outlook) bool {
	return e.Target.Files != nil && e.Target.Files != l.Host.System.ESP
}

// settle wipes what is left over, in an update of its own, if a token of the running
// state has opened the volume in this call: by unlocking it, or because it was just
// made and the TPM gave it back.
func (f *following) settle(ctx context.Context, p *followPlan, op *opened) error {
	w := &plan{volume: p.volume}
	out := &outcome{plan: w, opened: luks2.AnySlot}
	for _, left := range p.left {
		t, ok := p.header.Token(left.id)
		if ok && f.app.unlocking.Standing(p.header, *t, op.key) == tokens.Authentic && left.slot.ID != op.key.Slot {
			w.wipe = append(w.wipe, left.slot)
		}
	}
	if op.token >= 0 && p.opensNow(op.token) {
		out.opened = op.key.Slot
	}
	if len(p.made) > 0 {
		own := *p.made[0]
		own.more = p.made[1:]
		out.enrolled = &own
	}
	if len(w.wipe) == 0 || len(out.proofs()) == 0 {
		return nil // at a later call
	}
	ex := f.app.executor()
	if err := ex.proveRemaining(out); err != nil {
		return err
	}
	if err := ex.wipeSlots(ctx, out); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	p.wiped = append(p.wiped, out.wiped...)
	p.left = nil
	return nil
}

// opensNow reports whether a token is satisfied by the present values alone.
func (p *followPlan) opensNow(token int) bool {
	return slices.ContainsFunc(p.tokens, func(t tpm2.BootToken) bool { return t.Token.ID == token && t.Opens(p.present) })
}
