package fido2

import (
	"context"
	"fmt"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// enrolment is a token of a volume whose credential a key holds.
type enrollment struct {
	request *tokens.EnrollRequest
	token   luks2.Token
}

// enrolled returns the first enrolment of the key on the volumes, among the tokens
// that match, or nil. Credentials that pre-flights cannot find do not count.
func (k *key) enrolled(ctx context.Context, reqs []*tokens.EnrollRequest, match func(*parameters) bool) (*enrollment, error) {
	for _, req := range reqs {
		for _, t := range req.Volume.Tokens {
			if t.Type != Type {
				continue
			}
			p, err := parse(t)
			if err != nil || !match(p) {
				continue
			}
			c, err := k.holds(ctx, p)
			if err != nil {
				return nil, err
			}
			if c == certain {
				return &enrollment{req, t}, nil
			}
		}
	}
	return nil, nil
}

// refuseDuplicates looks for the key's credentials in the tokens of the volumes.
func (e *enroller) refuseDuplicates(ctx context.Context) error {
	if e.h.AllowDuplicate {
		return nil
	}
	found, err := e.k.enrolled(ctx, e.reqs, func(*parameters) bool { return true })
	if err == nil && found == nil && e.p.pin == yes {
		found, err = e.hiddenDuplicate(ctx)
	}
	if err != nil || found == nil {
		return err
	}
	return fmt.Errorf("%w: %s unlocks %s of %s; --allow-duplicate enrols it once more",
		tokens.ErrDuplicate, e.k.called(tokens.Label(found.token.Raw)), tokens.TokenText(found.token, typeName), found.request.Volume.Device)
}

// hiddenDuplicate looks for credentials that only show themselves to a verified
// user. The PIN is needed anyway; without one they are not found.
func (e *enroller) hiddenDuplicate(ctx context.Context) (*enrollment, error) {
	for _, req := range e.reqs {
		for _, t := range req.Volume.Tokens {
			if t.Type != Type {
				continue
			}
			p, err := parse(t)
			if err != nil || p.uv != yes {
				continue
			}
			a := &wire.Assertion{Path: e.k.device.Path, RP: p.rp, Credential: p.credential}
			if e.k.hasUP() {
				a.UP = wire.False
			}
			c := ceremony{k: e.k, pin: true, enrolling: true, do: func(ctx context.Context, _ *ceremony, pin secret.Secret) error {
				_, err := e.k.client.Assert(ctx, a, pin, secret.Secret{})
				return err
			}}
			switch err := c.run(ctx); {
			case err == nil:
				return &enrollment{req, t}, nil
			case wire.CodeOf(err) != wire.NoCredentials:
				return nil, err
			}
		}
	}
	return nil, nil
}
