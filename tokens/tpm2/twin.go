package tpm2

import (
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
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
		if err != nil || !slices.Equal(t.policy, e.t.policy) || !t.sameConditions(e.t) || !e.sameParent(t) {
			continue
		}
		if e.o.check(&candidate{raw, t}, nil).State.Fits() || !e.isPresentState() {
			return &raw
		}
	}
	return nil
}

// inVain refuses to make a new key under the policy of an old one that the present
// state does not satisfy: what is missing is a signature or a prediction.
func (e *enrollment) inVain(old *candidate) error {
	if !slices.Equal(old.parsed.policy, e.t.policy) {
		return nil
	}
	if state := e.o.check(old, nil); state.State == OtherState {
		return tokens.FailureOf(old.raw, typeName, fmt.Errorf("a new key would be under the same policy: %w", state.Err))
	}
	return nil
}
