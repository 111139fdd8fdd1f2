package pkcs11

import (
	"context"
	"fmt"

	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

var _ tokens.Examiner = (*Handler)(nil)

// Examine implements [tokens.Examiner] by what cards say of themselves before a
// login. Whether the private key is there can only be seen with the PIN.
func (h *Handler) Examine(ctx context.Context, req *tokens.UnlockRequest) ([]tokens.Examination, error) {
	jobs, _, err := h.jobs(req)
	if err != nil {
		return nil, err
	}
	s, err := h.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	present, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	var list []tokens.Examination
	for _, t := range req.Tokens {
		e := tokens.Examination{Token: t, Err: tokens.ErrMalformed}
		for _, j := range jobs {
			if j.token.ID == t.ID {
				e = j.examined(usable(present.Tokens))
			}
		}
		list = append(list, e)
	}
	return list, nil
}

// examined looks for a card that the job may be for, and prefers one that takes a
// PIN.
func (j *job) examined(devices []*wire.Token) tokens.Examination {
	e := tokens.Examination{Token: j.token, Verdict: tokens.Absent, Err: fmt.Errorf("%w: %s", tokens.ErrNoDevice, j.selects)}
	for _, device := range devices {
		if !j.selects.matchesToken(device) {
			continue
		}
		err := checkPINState(device)
		if err == nil {
			return tokens.Examination{Token: j.token, Verdict: tokens.OpensWithPerson}
		}
		e.Verdict, e.Err = tokens.Closed, err
	}
	return e
}
