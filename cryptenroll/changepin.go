package main

import (
	"context"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// pinChanger is the enroller of --tpm2-change-pin.
type pinChanger struct {
	handler  *tpm2.Handler
	old      luks2.Token
	verified bool // the old PIN opened the volume in this run

	authentic bool
}

func (c *pinChanger) opened(token int, pin secret.Secret) {
	c.verified = token == c.old.ID && pin.Len() > 0
}

func (c *pinChanger) replaced() luks2.Token { return c.old }

func (c *pinChanger) did() string { return "Changed the PIN of" }

func (c *pinChanger) vouch() { c.authentic = true }

func (c *pinChanger) renewal(ctx context.Context, req *tokens.EnrollRequest) (*tpm2.Renewal, error) {
	return c.handler.Renewal(ctx, &tpm2.ResealRequest{Volume: req.Volume, Token: c.old, Compat: req.Compat, KeepPolicy: true})
}

// Plan says which token gets another PIN.
func (c *pinChanger) Plan(req *tokens.EnrollRequest) (string, error) {
	n, err := c.renewal(context.Background(), req)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("TPM2 with another PIN, replacing keyslot %d: %s", c.old.Keyslots[0], n.New), nil
}

// Enroll makes the new token.
func (c *pinChanger) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	return c.handler.ChangePIN(ctx, &tpm2.ChangePINRequest{Volume: req.Volume, Token: c.old, Compat: req.Compat, Verified: c.verified, Authentic: c.authentic}, ui)
}

// planPINChange finds the one TPM2 token with a PIN, or that of --unlock-slot=.
func (pl *planner) planPINChange(p *plan) (*pinChanger, error) {
	var found []luks2.Token
	for _, s := range p.slots {
		if s.Kind == "tpm2" && s.Usable() && slices.Contains(s.Description.Requires, "PIN") &&
			(pl.o.unlock.slot == luks2.AnySlot || pl.o.unlock.slot == s.ID) {
			found = append(found, s.Tokens...)
		}
	}
	switch len(found) {
	case 0:
		return nil, usagef("--tpm2-change-pin: %s has no TPM2 keyslot with a PIN", p.path)
	case 1:
		return &pinChanger{handler: handlerOf[*tpm2.Handler](pl.enrolling), old: found[0]}, nil
	}
	return nil, usagef("--tpm2-change-pin: %s has %d TPM2 keyslots with a PIN: name one with --unlock-slot=N", p.path, len(found))
}
