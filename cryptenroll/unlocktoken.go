package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

// withAnyToken tries the tokens of every type whose device is present, the
// types in the order of tokens/all. Failures are reported and do not end the run:
// a person can still be asked. Whoever is asked for a PIN may give the passphrase, too.
// That a device is not there is absent, which matters only if nobody opens the volume.
func (u *unlocker) withAnyToken(ctx context.Context, t *target) (op *opened, absent error) {
	given := u.offerPassphrase(t)
	defer func() { u.person.offer = nil }()
	for _, h := range u.types {
		handler, ok := h.(tokens.Unlocker)
		if !ok || len(u.tokensOf(t, handler)) == 0 {
			continue
		}
		op, err := u.withTokens(ctx, t, handler)
		if op == nil {
			op = *given
		}
		switch {
		case op != nil || ctx.Err() != nil || errors.Is(err, tokens.ErrSkipped) && u.person.offer != nil:
			return op, absent
		case errors.Is(err, tokens.ErrNoPrompt), errors.Is(err, tokens.ErrCancelled):
		case isAbsence(err):
			absent = errors.Join(absent, err)
		default:
			u.warn(err)
		}
	}
	return nil, absent
}

// asked is a failure after a person was asked for a PIN.
type asked struct{ error }

func (a *asked) Unwrap() error { return a.error }

// isAbsence reports whether nothing else is wrong than that a device is not there. One
// that went while its PIN was typed was there.
func isAbsence(err error) bool {
	if _, went := errors.AsType[*asked](err); went {
		return false
	}
	return cli.ExitStatus(err) == cli.ExitNoSecurityDevice && !errors.Is(err, tokens.ErrOtherDevice)
}

// offerPassphrase has questions for a PIN say that a passphrase will do, if one opens the
// volume. What was typed there and did is in given.
func (u *unlocker) offerPassphrase(t *target) (given **opened) {
	given = new(*opened)
	if kind := u.promptKind(t); kind != "" {
		u.person.offer = &offer{noun: kind, opens: func(ctx context.Context, typed secret.Secret) bool {
			candidates := recovery.Candidates(typed)
			defer secret.WipeAll(candidates)
			*given, _ = u.tryCandidates(ctx, t, candidates, string(kind))
			return *given != nil
		}}
	}
	return given
}

// tokensOf are the usable tokens of a type that may open; with --unlock-slot= only
// that of the slot.
func (u *unlocker) tokensOf(t *target, h tokens.Unlocker) []luks2.Token {
	list := slices.DeleteFunc(t.tokensOf(h), func(tok luks2.Token) bool {
		s, _ := t.slot(tok.Keyslots[0])
		return slices.Contains(t.closed, tok.ID) || !u.tries(&s)
	})
	slices.SortStableFunc(list, func(x, y luks2.Token) int { return t.order(x.Keyslots[0], y.Keyslots[0]) })
	return list
}

// withTokens lets a token type unlock the volume.
func (u *unlocker) withTokens(ctx context.Context, t *target, h tokens.Unlocker) (*opened, error) {
	list := u.tokensOf(t, h)
	if len(list) == 0 {
		return nil, u.hintSkipped(t, u.nothingOf(t, h))
	}
	op := &opened{token: -1}
	ui := &listening{UI: u.askerForPIN()}
	begin := time.Now()
	unlocked, err := tokens.UnlockWithRetries(ctx, h, t.unlockRequest(list, op), ui)
	if err != nil {
		ui.last.Wipe()
		if ui.text != "" {
			err = &asked{err}
		}
		return nil, err
	}
	unlocked.Passphrase.Wipe()
	op.token, op.pin, op.question, op.took = unlocked.Token.ID, ui.last, ui.text, time.Since(begin)
	op.how = h.Name() + " token"
	return op, nil
}

// unlockRequest asks for the passphrase of one of the tokens. The volume key that
// comes out goes into op, or is wiped when op is nil.
func (v *volume) unlockRequest(list []luks2.Token, op *opened) *tokens.UnlockRequest {
	return &tokens.UnlockRequest{Volume: v.forTokens(), Tokens: list,
		Opens: func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
			if len(t.Keyslots) == 0 {
				return tokens.ErrWrongKey
			}
			vk, err := v.device.OpenKeyslot(ctx, t.Keyslots[0], passphrase)
			switch {
			case errors.Is(err, luks2.ErrNoKey):
				return tokens.ErrWrongKey
			case err != nil:
				return err
			case op == nil:
				vk.Wipe()
			default:
				op.key = vk
			}
			return nil
		}}
}

// askerForPIN is the asker, which needs to ask nobody for a PIN that is known.
func (u *unlocker) askerForPIN() tokens.UI {
	if u.known == nil {
		return u.person.asker()
	}
	return &typedOnce{UI: u.person.asker(), pin: u.known.pin, text: u.known.question}
}
