package pkcs11

import (
	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Conditional = (*Handler)(nil)

// Conditions are the key on the smartcard and how it is used. They are part of the
// format: docs/formats.md, "Authenticated conditions".
func (h *Handler) Conditions(t luks2.Token) ([]tokens.Condition, error) {
	r, err := parse(t.Raw)
	if err != nil {
		return nil, err
	}
	return []tokens.Condition{
		{Name: "uri", Value: r.text},
		{Name: "padding", Value: string(r.padding)},
		{Name: "key", Value: string(r.key)},
	}, nil
}
