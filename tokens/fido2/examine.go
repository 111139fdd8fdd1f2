package fido2

import (
	"context"

	"luksmith/tokens"
)

var _ tokens.Examiner = (*Handler)(nil)

// Examine implements [tokens.Examiner] with the pre-flights of an unlock: neither
// touch nor PIN, nor a try of the PIN.
func (h *Handler) Examine(ctx context.Context, req *tokens.UnlockRequest) ([]tokens.Examination, error) {
	u := &unlocking{h: h, req: req}
	if err := u.collect(); err != nil {
		return nil, err
	}
	ks, err := h.openKeys(ctx, h.UnlockDevice, tokens.Nobody{})
	if err != nil {
		return nil, err
	}
	defer ks.close()
	if err := u.match(ctx, ks); err != nil {
		return nil, err
	}
	var list []tokens.Examination
	for _, t := range req.Tokens {
		list = append(list, u.examined(tokens.Examination{Token: t, Err: tokens.ErrMalformed}, ks))
	}
	return list, nil
}

// examined completes the result for a token.
func (u *unlocking) examined(e tokens.Examination, ks *keys) tokens.Examination {
	for _, w := range u.wanted {
		if w.token.ID == e.Token.ID {
			e.Verdict, e.Err = tokens.Absent, w.absent(ks)
			if k := w.blocked(ks); k != nil {
				e.Verdict, e.Err = tokens.Closed, k.unasked
			}
		}
	}
	for _, m := range u.matches {
		if m.token.ID != e.Token.ID {
			continue
		}
		if e.Verdict, e.Err = tokens.OpensWithPerson, nil; m.p.pin == yes {
			e.Err = m.k.pinObstacle()
		}
		if e.Err != nil {
			e.Verdict = tokens.Closed
		}
	}
	return e
}
