package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain"
)

// carryOut makes the keys that are missing, in one update of the header, and wipes what
// no boot entry leads to any more, in another.
func (f *following) carryOut(ctx context.Context, p *followPlan) error {
	if err := p.sign(ctx); err != nil {
		return err
	}
	op, err := f.need(ctx, p)
	if op == nil || err != nil {
		return err
	}
	defer op.wipe()
	p.opened = op.key.Slot
	if err := f.judgeTokens(p, op); err != nil {
		return err
	}
	if err := f.proveStrength(p, op); err != nil {
		return err
	}
	if err := f.app.executor().backUp(ctx, &outcome{plan: &plan{volume: p.volume}}); err != nil {
		return err
	}
	if err := f.makeRoom(ctx, p, op); err != nil {
		return err
	}
	if len(p.missing()) > 0 {
		if err := f.enroll(ctx, p, op); err != nil {
			return err
		}
	}
	return f.settle(ctx, p, op)
}

// need opens the volume if there is something to do: nil if not. To wipe what is left
// over nobody is asked.
func (f *following) need(ctx context.Context, p *followPlan) (*opened, error) {
	if len(p.missing()) > 0 {
		op, err := f.open(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", p.path, err)
		}
		return op, nil
	}
	if len(p.left) > 0 {
		return f.unseal(ctx, p, f.app.unlocker()), ctx.Err()
	}
	return nil, nil
}

// open gets the volume key: from a token that opens in the boot that is running and
// asks nobody, unless the options name another way or there is no such token.
func (f *following) open(ctx context.Context, p *followPlan) (*opened, error) {
	a := f.app
	u := a.unlocker()
	if f.hook {
		op := f.unseal(ctx, p, u)
		if op == nil && ctx.Err() == nil {
			return nil, errNoOwnKey
		}
		return op, ctx.Err()
	}
	if err := u.how.resolve(p.volume); err != nil {
		return nil, err
	}
	t := &target{volume: p.volume}
	if len(u.how.methods()) == 0 && u.how.slot == luks2.AnySlot {
		if op := f.unseal(ctx, p, u); op != nil || ctx.Err() != nil {
			return op, ctx.Err()
		}
	}
	return u.unlock(ctx, t)
}

// unseal opens the volume by a token whose policy follows from the present values; nil
// if there is none.
func (f *following) unseal(ctx context.Context, p *followPlan, u *unlocker) *opened {
	silent := *u
	silent.person = &asking{headless: true, environment: f.app.environment, msg: f.app.msg}
	t := &target{volume: p.volume}
	fits, spare := 0, []int(nil)
	for _, token := range p.tokens {
		id := token.Token.ID
		switch {
		case !token.Opens(p.present):
			t.closed = append(t.closed, id)
		case slices.ContainsFunc(p.left, func(left leftOver) bool { return left.id == id }):
			spare = append(spare, id) // its key would be no proof
		default:
			fits++
		}
	}
	if fits > 0 {
		t.closed = append(t.closed, spare...)
	} else if len(spare) == 0 {
		return nil
	}
	op, err := silent.withTokens(ctx, t, handlerOf[*tpm2.Handler](f.app.unlocking))
	if err != nil && ctx.Err() == nil {
		f.app.msg.WarnError(err)
	}
	return op
}

// judgeTokens looks at the tokens with the volume key. One that was altered since it
// was enrolled neither serves to open the volume nor counts as the key for a state.
func (f *following) judgeTokens(p *followPlan, op *opened) error {
	altered := func(slot int) bool {
		return slices.ContainsFunc(p.header.TokensOf(slot), func(t luks2.Token) bool {
			return f.app.unlocking.Standing(p.header, t, op.key) == tokens.Altered
		})
	}
	if op.token >= 0 && altered(op.key.Slot) {
		s, _ := p.slot(op.key.Slot)
		return tokens.WithHint(fmt.Errorf("%w: %s opened %s, and was altered since it was enrolled", cli.ErrRefused, s.String(), p.path),
			"enrol anew and wipe it; then call follow again")
	}
	for _, s := range p.states {
		if s.slot != luks2.AnySlot && altered(s.slot) {
			old, _ := p.slot(s.slot)
			f.app.msg.Warning(fmt.Sprintf("%s of %s was altered since it was enrolled and does not count", old.String(), p.path))
			s.slot = luks2.AnySlot
		}
	}
	return nil
}

// enroll seals and writes the keys. One update adds all of them.
func (f *following) enroll(ctx context.Context, p *followPlan, op *opened) error {
	list := p.missing()
	req := &tpm2.SealRequest{Volume: p.forTokens(), Compat: p.compat}
	for _, s := range list {
		req.States = append(req.States, tpm2.BootState{PCRs: s.values, Label: s.label, Events: s.events,
			Entry: tpm2.BootEntry{ID: s.entry.ID, MachineID: p.machine, Likely: s.grade == bootchain.Likely, Extended: s.extended}})
	}
	made, err := f.app.tpm2().SealForBoots(ctx, req, tokens.Nobody{})
	if err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if made, err = fit(ctx, p, list, made); err != nil || len(made) == 0 {
		return err
	}
	first := made[0]
	first.More = made[1:]
	defer wipeResult(first)
	out := &outcome{plan: &plan{volume: p.volume, priority: luks2.PriorityNormal}, opened: op.key.Slot}
	e, err := f.app.executor().writeResult(ctx, out, op.key, first)
	if err != nil {
		return err
	}
	p.made = e.all()
	for i := range p.made {
		list[i].slot, list[i].made = p.made[i].slot, true
	}
	return nil
}

// fit gives up the last of the keys that the header has no room for, now that their
// size is known.
func fit(ctx context.Context, p *followPlan, list []*followState, made []*tokens.Enrollment) ([]*tokens.Enrollment, error) {
	for len(made) > 0 {
		err := p.device.Rehearse(ctx, func(tx *luks2.Tx) error {
			for _, e := range made {
				if err := addKeyslot(tx, append(e.Token[:len(e.Token)-1:len(e.Token)-1], macRoom()...)); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			return made, nil
		}
		last := len(made) - 1
		if !errors.Is(err, luks2.ErrNoSpace) {
			for _, e := range made {
				e.Passphrase.Wipe()
			}
			return nil, err
		}
		made[last].Passphrase.Wipe()
		list[last].full(err)
		made = made[:last]
	}
	return nil, nil
}

// macRoom ends a token with what is as long as the MAC that it will get.
func macRoom() string { return `,"room":"` + strings.Repeat("x", 88) + `"}` }
