package tpm2

import (
	"luksmith/luks2"
)

// twin is a token that is what would be made beside the old one, nil without one. It
// counts if the TPM opens it now, or it is for other values that were asked for.
func (e *enrollment) twin(req *ResealRequest) *luks2.Token {
	if !req.KeepOld {
		return nil
	}
	for _, raw := range req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		t, err := parseToken(raw.Raw)
		if err != nil || !t.policy.Equal(e.t.policy) || !t.sameConditions(e.t) || !e.sameParent(t) {
			continue
		}
		if e.o.check(&candidate{raw, t}, nil).State.Fits() || !e.isPresentState() {
			return &raw
		}
	}
	return nil
}
