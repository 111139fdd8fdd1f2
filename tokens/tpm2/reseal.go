package tpm2

import (
	"context"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// ResealRequest asks for a token to be bound to the present state of the machine.
type ResealRequest struct {
	Volume tokens.Volume
	Token  luks2.Token // one of Volume.Tokens, of this type
	// Compat is the oldest systemd that must read the new token.
	Compat int
	// Label is the name of the new token; empty keeps the old one.
	Label string
	// IfNeeded makes nothing new while the token opens: the result is then
	// Unchanged. A token with a PIN counts as opening when all but the PIN fits.
	IfNeeded bool
	// KeepOld leaves the old token beside the new one, for a rollback of the
	// update: it is not in Replaces.
	KeepOld bool
	// KeepPolicy says that [Handler.Renewal] is asked for a change of the PIN.
	KeepPolicy bool
	// Authentic says that somebody with the volume key vouches for the conditions
	// of the token.
	Authentic bool
}

// Reseal makes a new key with the options and the label of an old token, bound to
// the present PCR values, or to those of --tpm2-pcrs=. It proves the new token
// like Enroll. The PIN, if there is one, stays: it is asked for once and checked
// by the old sealed object, whose policy need not be satisfied for that; when the
// TPM no longer loads that object a note says that the PIN could not be checked.
//
// The caller adds the keyslot, opens it, and only then removes what Replaces
// names.
func (h *Handler) Reseal(ctx context.Context, req *ResealRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	fail := func(err error) (*tokens.Enrollment, error) {
		return nil, tokens.FailureOf(req.Token, typeName, err)
	}
	old, err := renewableToken(req.Token.Raw)
	if err != nil {
		return fail(err)
	}
	s, err := h.settingsOf(old, req)
	if err != nil {
		return nil, err
	}
	c, err := h.connect(ctx, h.Device)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e := h.newEnrollment(s, c, ui)
	if req.IfNeeded {
		state := e.o.check(&candidate{req.Token, old}, nil)
		if state.State.Fits() {
			return &tokens.Enrollment{KDF: luks2.MinimalKDF, Unchanged: &req.Token, Label: string(old.extra.Label), Requires: old.requires(), Crypttab: e.crypttab()}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := s.refuseLate(h); err != nil {
		return nil, err
	}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	if err := e.refuseLike(&candidate{req.Token, old}); err != nil {
		return fail(err)
	}
	if twin := e.twin(req); twin != nil {
		return e.unchanged(twin), nil
	}
	e.askPIN = func(context.Context) (secret.Secret, error) { return e.presentPIN(old) }
	r := replacement{}
	if !req.KeepOld {
		r.replaces = []int{req.Token.ID}
	}
	return e.make(ctx, r)
}
