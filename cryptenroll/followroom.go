package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/internal/gpt"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// judgeSpace takes states off the plan that the header has no room for, the oldest
// entries first, but for the one that is running.
func (f *following) judgeSpace(ctx context.Context, p *followPlan) error {
	list := p.missing()
	for len(list) > 0 {
		err := p.device.Rehearse(ctx, func(tx *luks2.Tx) error { return rehearse(tx, list) })
		if err == nil {
			return nil
		}
		if !errors.Is(err, luks2.ErrNoSpace) {
			return err
		}
		list[len(list)-1].full(err)
		list = list[:len(list)-1]
	}
	return nil
}

// full notes that there is no room. What takes it is the same for each entry: the
// list of tokens says that.
func (s *followState) full(err error) {
	if space, ok := errors.AsType[*luks2.SpaceError](err); ok {
		short := *space
		short.Tokens, err = nil, &short
	}
	s.noRoom, s.reason = true, "the header has no room for a key: "+err.Error()
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// rehearse adds keyslots as they will be: the tokens are not made yet, so that they
// count with what they are known to have (docs/formats.md, "Keys for boots to come").
func rehearse(tx *luks2.Tx, list []*followState) error {
	for _, s := range list {
		raw := fmt.Sprintf(`{"type":"systemd-tpm2","keyslots":[],"room":%q}`, strings.Repeat("x", 880+56*len(s.pcrs)+len(s.label)+len(s.entry.ID)))
		if err := addKeyslot(tx, []byte(raw)); err != nil {
			return err
		}
	}
	return nil
}

func addKeyslot(tx *luks2.Tx, token []byte) error {
	slot, err := tx.AddKeyslot(nil, secret.Secret{}, luks2.MinimalKDF)
	if err == nil {
		_, err = tx.AddToken(luks2.Token{Type: "systemd-tpm2", Keyslots: []int{slot}, Raw: token})
	}
	return err
}

// giveUpOldest has the oldest entry lose its key to the newest one, if the header has no
// room for that otherwise: it is the one that is booted next.
func (p *followPlan) giveUpOldest() {
	newest := p.newest()
	if newest == nil || !newest.noRoom {
		return
	}
	var oldest *followState
	var spare leftOver
	for _, s := range p.states {
		if left, ok := p.spares(s); ok && (oldest == nil || older(s, oldest)) && older(s, newest) {
			oldest, spare = s, left
		}
	}
	if oldest == nil {
		return
	}
	oldest.full(errors.New("a newer entry has it"))
	oldest.slot = luks2.AnySlot
	newest.noRoom, newest.reason = false, ""
	p.left = append(p.left, spare)
}

func older(a, b *followState) bool { return gpt.CompareVersions(a.entry.ID, b.entry.ID) < 0 }

// newest is the newest entry of this system that has values, nil if none has.
func (p *followPlan) newest() (newest *followState) {
	for _, s := range p.states {
		if !s.foreign && !s.otherwise && s.values != nil && (newest == nil || older(newest, s)) {
			newest = s
		}
	}
	return newest
}

// spares returns the keyslot that an entry can lose: one that follow made, and that
// neither the running state nor another entry needs.
func (p *followPlan) spares(s *followState) (leftOver, bool) {
	if s.slot == luks2.AnySlot || s.running || s.same != nil || slices.ContainsFunc(p.states, func(x *followState) bool { return x.same == s }) {
		return leftOver{}, false
	}
	for i := range p.tokens {
		t := &p.tokens[i]
		if t.Entry == nil || !t.Plain || !p.own(t.Entry.MachineID) || !slices.Equal(t.Token.Keyslots, []int{s.slot}) {
			continue
		}
		slot, ok := p.slot(s.slot)
		return leftOver{slot, t.Token.ID, "there is no room for it beside newer entries", s}, ok
	}
	return leftOver{}, false
}

// makeRoom settles before the keys are made, where the header has no room for them.
func (f *following) makeRoom(ctx context.Context, p *followPlan, op *opened) error {
	short := func(s *followState) bool { return s.noRoom }
	if !slices.ContainsFunc(p.states, short) || len(p.left) == 0 {
		return nil
	}
	if err := f.settle(ctx, p, op); err != nil {
		return err
	}
	p.keepOldest()
	for _, s := range p.states {
		if s.noRoom {
			s.noRoom, s.reason = false, ""
		}
	}
	return f.judgeSpace(ctx, p)
}

// keepOldest gives an entry its key back, where nothing proved that it may go.
func (p *followPlan) keepOldest() {
	for _, left := range p.left {
		if left.of != nil {
			left.of.slot = left.slot.ID
		}
	}
	p.left = slices.DeleteFunc(p.left, func(left leftOver) bool { return left.of != nil })
}
