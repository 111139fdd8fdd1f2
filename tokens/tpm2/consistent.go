package tpm2

import (
	"errors"
	"fmt"
	"slices"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// contradicted reports whether the policy of a token shows that it has a PIN which it
// does not admit, or the other way round: by the values that the PCRs have or that
// are recorded, whoever wrote them there.
func (e *enrollment) contradicted(old *token) bool {
	other := *old
	other.PIN = !old.PIN
	for _, values := range []chip.PCRValues{old.written(), e.present} {
		if values.Set() == old.PCRs && !old.Explains(old.policy, values) && other.Explains(old.policy, values) {
			return true
		}
	}
	return false
}

// errContradiction: the policy of the sealed object is not that of the conditions.
var errContradiction = errors.New("the token was altered: its policy does not follow from the conditions that it states")

func contradiction() error {
	return tokens.WithHint(errContradiction, "open the volume with a passphrase or the recovery key, enrol anew and wipe this keyslot")
}

// policyOfConditions is the policy that follows from the conditions of a token, for
// the values of its enrolment or the present ones. What follows from neither is
// taken over only if the conditions are authentic, for the policy is one of them.
func (e *enrollment) policyOfConditions(old *token, authentic bool) ([]chip.Digest, error) {
	for _, values := range []chip.PCRValues{old.recorded(), e.present} {
		if (old.PCRs == 0 || len(values) > 0) && old.Explains(old.policy, values) {
			return slices.Clone(old.policy), nil
		}
	}
	if !authentic {
		return nil, tokens.WithHint(fmt.Errorf("%w: whether the policy of the token follows from its conditions cannot be known in this state of the machine", tokens.ErrPolicy),
			"enrol anew, or re-seal it first: cryptenroll reseal DEVICE")
	}
	return slices.Clone(old.policy), nil
}

// refuseLike refuses to make a new key like that of an old token, with the conditions
// that this one states: if they are not those of its policy, or lead to the same policy
// and the present state does not satisfy it. Then a signature or a prediction is missing.
func (e *enrollment) refuseLike(old *candidate) error {
	if e.contradicted(old.parsed) {
		return contradiction()
	}
	if !old.parsed.policy.Equal(e.t.policy) {
		return nil
	}
	if state := e.o.check(old, nil); state.State == OtherState {
		return fmt.Errorf("a new key would be under the same policy: %w", state.Err)
	}
	return nil
}
