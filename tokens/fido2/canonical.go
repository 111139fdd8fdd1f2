package fido2

import (
	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Conditional = (*Handler)(nil)

// Conditions are the credential and what the key has to ask of a person. They are
// part of the format: docs/formats.md, "Authenticated conditions".
func (h *Handler) Conditions(t luks2.Token) ([]tokens.Condition, error) {
	p, err := parse(t)
	if err != nil {
		return nil, err
	}
	return []tokens.Condition{
		{Name: "credential", Value: string(p.credential)},
		{Name: "rp", Value: p.rp},
		{Name: "pin", Value: p.pin.String()},
		{Name: "up", Value: p.up.String()},
		{Name: "uv", Value: p.uv.String()},
	}, nil
}
