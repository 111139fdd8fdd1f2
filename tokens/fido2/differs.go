package fido2

import (
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Matcher = (*Handler)(nil)

// Differs implements [tokens.Matcher]. What the options leave open, the key decided.
func (h *Handler) Differs(_ *tokens.EnrollRequest, t luks2.Token) (string, error) {
	p, err := parse(t)
	if err != nil {
		return "", err
	}
	for _, f := range []struct {
		want *bool
		is   need
		name string
	}{{h.WithPIN, p.pin, "a PIN"}, {h.WithUP, p.up, "a touch"}, {h.WithUV, p.uv, "user verification"}} {
		switch {
		case f.want == nil || f.is == needOf(*f.want):
		case *f.want:
			return fmt.Sprintf("it does not demand %s", f.name), nil
		default:
			return fmt.Sprintf("it may demand %s", f.name), nil
		}
	}
	return "", nil
}
