package tpm2

import (
	"context"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// ChangePINRequest asks for a token with another PIN.
type ChangePINRequest struct {
	Volume tokens.Volume
	Token  luks2.Token // one of Volume.Tokens, of this type, with a PIN
	Compat int         // the oldest systemd that must read the new token
	// Verified says that the caller has just opened the volume with this token,
	// so that the present PIN need not be asked for once more.
	Verified bool
	// Authentic says that somebody with the volume key vouches for the conditions
	// of the token.
	Authentic bool
}

// ChangePIN makes a new key with the policy and the label of an old token and
// another PIN. The present PIN is checked by the old sealed object, whatever state
// the PCRs are in. The new token replaces the old one; the key is another, so an
// old copy of the header together with the old PIN opens nothing once the old
// keyslot is gone.
func (h *Handler) ChangePIN(ctx context.Context, req *ChangePINRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	fail := func(err error) (*tokens.Enrollment, error) {
		return nil, tokens.FailureOf(req.Token, typeName, err)
	}
	old, err := renewableToken(req.Token.Raw)
	if err != nil {
		return fail(err)
	}
	if !old.PIN {
		return fail(tokens.Usagef("the token has no PIN; enrol another with --tpm2-with-pin=yes"))
	}
	s, err := h.settingsOf(old, &ResealRequest{Volume: req.Volume, Compat: req.Compat})
	if err != nil {
		return nil, err
	}
	c, err := h.connect(ctx, h.Device)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e := h.newEnrollment(s, c, ui)
	e.o.pinText = "Present PIN of the TPM" + old.label()
	if !req.Verified {
		pin, err := e.oldPIN(old)
		pin.Wipe()
		if err != nil {
			return fail(err)
		}
	}
	if err := e.prepareLike(old, req.Authentic); err != nil {
		return nil, err
	}
	return e.make(ctx, replacement{replaces: []int{req.Token.ID}, samePolicy: true})
}

// prepareLike takes over the conditions and the parent of an old token.
func (e *enrollment) prepareLike(old *token, authentic bool) error {
	e.t = e.s.token()
	if old.Bank != 0 {
		e.t.Bank = old.Bank
	}
	e.values, e.present = old.recorded(), chip.PCRValues{}
	e.events = e.h.Paths.bootEvents()
	var err error
	if e.t.Parent, err = e.o.parentOf(old); err != nil {
		return err
	}
	e.t.primaryAlg = e.t.Parent.Algorithm()
	if e.t.NVIndex == nil {
		e.t.NVIndex = old.NVIndex
	}
	if e.t.PCRs != 0 {
		if e.present, err = e.c.ReadPCRs(e.t.Bank, e.t.PCRs); err != nil {
			return err
		}
	}
	if e.contradicted(old) {
		return contradiction()
	}
	if e.t.policy, err = e.policyOfConditions(old, authentic); err != nil {
		return err
	}
	if e.product, err = e.c.Product(); err != nil {
		return err
	}
	if old.Parent == nil && e.s.compat >= sinceSRK {
		// The policy stays, and a transient parent fits every version.
		e.s.compat = sinceSRK - 1
		return e.s.readableBy(old)
	}
	return nil
}
