package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
)

// writeResult puts one result of an enrolment on its volume and proves all its
// keyslots.
func (ex *executor) writeResult(ctx context.Context, out *outcome, vk *luks2.VolumeKey, result *tokens.Enrollment) (*enrolled, error) {
	p := out.plan
	if result.Unchanged != nil {
		return p.keepToken(out, result)
	}
	e := &enrolled{slot: -1, token: -1, result: result}
	if err := ex.mayReplace(out, e); err != nil {
		return nil, err
	}
	if err := ex.writeWithRoom(ctx, out, vk, e); err != nil {
		return nil, fmt.Errorf("enrolling on %s: %w", p.path, err)
	}
	for _, made := range e.all() {
		p.keep(made.slot)
		if err := p.prove(ctx, made); err != nil {
			return e, ex.takeBack(p, e, err)
		}
	}
	return e, nil
}

// keepToken is writeResult for a token that does already what was asked for.
func (p *plan) keepToken(out *outcome, result *tokens.Enrollment) (*enrolled, error) {
	t, ok := p.header.Token(result.Unchanged.ID)
	if !ok || len(t.Keyslots) != 1 {
		return nil, fmt.Errorf("token %d of %s: %w", result.Unchanged.ID, p.path, luks2.ErrNoToken)
	}
	k, _ := p.header.Keyslot(t.Keyslots[0])
	p.keep(k.ID)
	return &enrolled{slot: k.ID, token: t.ID, keyslot: *k, result: result, proven: slices.Contains(out.gave, t.ID)}, nil
}

// keep takes a slot out of the wipe: --wipe-slot= never removes what an enrolment
// of the same call made, or found in place already.
func (p *plan) keep(slot int) {
	p.missing = slices.DeleteFunc(p.missing, func(id int) bool { return id == slot })
	p.wipe = slices.DeleteFunc(p.wipe, func(s tokens.Slot) bool { return s.ID == slot })
}

// write adds every keyslot of the enrolment with its token, and takes away what they
// replace, in one update.
func (ex *executor) write(ctx context.Context, p *plan, vk *luks2.VolumeKey, e *enrolled) error {
	return p.device.Update(ctx, func(tx *luks2.Tx) error {
		if err := ex.refuseTaken(tx.Header(), p); err != nil {
			return err
		}
		e.replaced, e.more = nil, nil
		for _, r := range e.result.More {
			e.more = append(e.more, &enrolled{slot: -1, token: -1, result: r})
		}
		for _, made := range e.all() {
			if err := ex.add(tx, p, vk, made); err != nil {
				return err
			}
		}
		for slot, label := range p.renames {
			if err := tokens.SetLabel(tx, ex.enrolling, slot, label); err != nil {
				return err
			}
		}
		if err := ex.dropOrphans(tx, p); err != nil {
			return err
		}
		return e.replace(tx, p.header)
	})
}

// dropOrphans removes tokens of the enrolled type whose keyslot somebody killed with
// cryptsetup.
func (ex *executor) dropOrphans(tx *luks2.Tx, p *plan) error {
	h, ok := p.enroller.(tokens.Enroller)
	if !ok {
		return nil
	}
	var list []int
	now := tx.Header()
	for _, t := range tokens.Orphans(ex.enrolling, now) {
		if t.Type == h.Type() {
			list = append(list, t.ID)
		}
	}
	return tokens.RemoveTokens(tx, ex.enrolling, now, list)
}

// refuseTaken refuses a label that another run gave to a keyslot meanwhile.
func (ex *executor) refuseTaken(now *luks2.Header, p *plan) error {
	if !p.sole {
		return nil
	}
	for _, s := range tokens.Slots(ex.enrolling, now) {
		if _, renamed := p.renames[s.ID]; s.Label == p.request.Label && !renamed {
			return tokens.WithHint(fmt.Errorf("%s was made meanwhile", s.String()), "run the command again")
		}
	}
	return nil
}

// add puts one keyslot with its token into an update.
func (ex *executor) add(tx *luks2.Tx, p *plan, vk *luks2.VolumeKey, e *enrolled) (err error) {
	r := e.result
	if e.slot, err = tx.AddKeyslot(vk, r.Passphrase, r.KDF); err != nil {
		return err
	}
	if p.priority != luks2.PriorityNormal {
		if err := tx.SetPriority(e.slot, p.priority); err != nil {
			return err
		}
	}
	written, _ := tx.Header().Keyslot(e.slot)
	e.keyslot, e.token = *written, -1
	switch {
	case r.Token != nil:
		raw, err := ex.enrolling.Authenticate(r.Token, written, vk)
		if err != nil {
			return err
		}
		e.token, err = tx.AddToken(luks2.Token{Keyslots: []int{e.slot}, Raw: raw})
		return err
	case r.Label != "":
		return tokens.SetLabel(tx, ex.enrolling, e.slot, r.Label)
	}
	return nil
}

// replace removes the keyslots of the tokens that the new one supersedes, unless
// they changed since the enroller looked at them.
func (e *enrolled) replace(tx *luks2.Tx, seen *luks2.Header) error {
	for _, id := range e.result.Replaces {
		before, _ := seen.Token(id)
		now, ok := tx.Header().Token(id)
		if !ok || before == nil || string(before.Raw) != string(now.Raw) || len(now.Keyslots) != 1 {
			continue
		}
		slot := now.Keyslots[0]
		if err := tx.RemoveKeyslotAndTokens(slot); err != nil {
			return err
		}
		e.replaced = append(e.replaced, slot)
	}
	return e.takeNumber(tx)
}

// takeNumber has the one keyslot that replaces another keep its number,
// by which people and files know it.
func (e *enrolled) takeNumber(tx *luks2.Tx) error {
	if len(e.replaced) != 1 || len(e.more) > 0 {
		return nil
	}
	if err := tx.TakeNumber(e.slot, e.replaced[0]); err != nil {
		return err
	}
	e.slot = e.replaced[0]
	k, _ := tx.Header().Keyslot(e.slot)
	e.keyslot = *k
	return nil
}

// prove opens the new keyslot from the disk with the secret that was handed out.
func (p *plan) prove(ctx context.Context, e *enrolled) error {
	vk, err := p.device.OpenKeyslot(ctx, e.slot, e.result.Passphrase)
	if err != nil {
		return fmt.Errorf("checking the new keyslot %d of %s: %w", e.slot, p.path, err)
	}
	vk.Wipe()
	e.proven = e.result.Proven
	return nil
}

// takeBack removes keyslots that nobody got the key of, and adds to the cause what
// became of them. Those that replaced others stay: they are gone.
func (ex *executor) takeBack(p *plan, e *enrolled, cause error) error {
	if len(e.replaced) > 0 {
		return cause
	}
	ctx := context.Background() // also after Ctrl-C
	err := p.device.Update(ctx, func(tx *luks2.Tx) error {
		for _, made := range e.all() {
			if err := tx.RemoveKeyslotAndTokens(made.slot); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(cause, fmt.Errorf("removing the new %s again: %w", e.slotsText(), err))
	}
	return &final{cause, fmt.Sprintf("%v; the new %s %s removed again", cause, e.slotsText(), isOrAre(len(e.more)+1))}
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// backUp copies the header to the file of --backup=, before anything is written.
func (ex *executor) backUp(ctx context.Context, out *outcome) error {
	if ex.backup == "" {
		return nil
	}
	if err := out.plan.device.Backup(ctx, ex.backup); err != nil {
		return err
	}
	out.backup = ex.backup
	return nil
}
