package main

import (
	"context"
	"errors"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// pinsInTurn asks for the PINs of one volume of several when it is its turn, like the
// prompt for its passphrase beside it. It keeps the turn until pass is called, so that
// a PIN is right, or said to be wrong, before the next volume asks.
type pinsInTurn struct {
	tokens.UI           // asks people
	quiet     tokens.UI // answers from where nobody has to be asked, in any order
	turn      *turn
}

// newPinsInTurn is nil for a volume that is alone.
func (at *attempt) newPinsInTurn(people tokens.UI) *pinsInTurn {
	if !at.job.turn.of.several() || at.job.options.Headless {
		return nil
	}
	return &pinsInTurn{people, at.asker(true), at.job.turn}
}

// pass lets another volume ask.
func (u *pinsInTurn) pass() {
	if u != nil {
		u.turn.pass(forPIN)
	}
}

// Ask waits for the turn where a person has to be asked.
func (u *pinsInTurn) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	if p.Attempt == 0 && !p.Person {
		answer, err := u.quiet.Ask(ctx, p)
		if !errors.Is(err, tokens.ErrNoPrompt) {
			return answer, err
		}
		p.Person = true
	}
	for {
		answer, yielded, err := u.askInTurn(ctx, p)
		if !yielded || err == nil || ctx.Err() != nil {
			return answer, err
		}
		u.pass()
	}
}

func (u *pinsInTurn) askInTurn(ctx context.Context, p tokens.Prompt) (answer secret.Secret, yielded bool, err error) {
	if err := u.turn.take(ctx, forPIN); err != nil {
		return secret.Secret{}, false, err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	hide := u.turn.show(forPIN, stop)
	answer, err = u.UI.Ask(asking, p)
	return answer, hide(), err
}
