package main

import (
	"context"
	"errors"
	"fmt"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// authenticate lets a key be made from a token that is there only under conditions
// that somebody vouches for: the volume key, by the MAC in the token; else the
// options, if they name all of them; else the person, who is shown them. Whoever can
// write the disk can edit what a token demands.
func (ex *executor) authenticate(ctx context.Context, p *plan, r renewer, vk *luks2.VolumeKey) error {
	old := r.replaced()
	standing := ex.enrolling.Standing(p.header, old, vk)
	n, err := r.renewal(ctx, p.request)
	if err != nil {
		return err
	}
	if n.Stated {
		return nil
	}
	name := p.tokenText(old)
	switch standing {
	case tokens.Authentic:
		r.vouch()
		return nil
	case tokens.Altered:
		return tokens.WithHint(fmt.Errorf("%w: %s was altered since it was enrolled; a key made from it would open with: %s", cli.ErrRefused, name, n.New),
			"enrol anew, or name all conditions of the new key, such as --tpm2-pcrs=7 --tpm2-with-pin=yes")
	}
	question := fmt.Sprintf("Nothing proves that %s still demands what it was enrolled with. The new key will open with: %s. Make it?", name, n.New)
	if n.Old != n.New {
		question = fmt.Sprintf("Nothing proves that %s still demands what it was enrolled with. It says: %s. The new key will open with: %s. Make it?", name, n.Old, n.New)
	}
	return ex.askToVouch(ctx, name, question, "run this on a terminal without --yes, or name all conditions of the new key, such as --tpm2-pcrs=7 --tpm2-with-pin=yes")
}

// askToVouch asks whether the conditions are right. Nobody to ask, and a yes that
// was given in advance, are no answer to that.
func (ex *executor) askToVouch(ctx context.Context, name, question, hint string) error {
	refused := tokens.WithHint(fmt.Errorf("%w: nothing proves that %s still demands what it was enrolled with, and nobody can be asked", cli.ErrRefused, name), hint)
	if ex.yes {
		return refused
	}
	yes, err := ex.unlocker.person.asker().Confirm(ctx, question)
	switch {
	case errors.Is(err, tokens.ErrNoPrompt):
		return refused
	case err != nil:
		return err
	case !yes:
		return fmt.Errorf("%w; nothing was changed", tokens.ErrCancelled)
	}
	return nil
}

// tokenText is the keyslot of a token in words.
func (p *plan) tokenText(t luks2.Token) string {
	if s, ok := p.slot(t.Keyslots[0]); ok {
		return s.String()
	}
	return fmt.Sprintf("token %d", t.ID)
}
