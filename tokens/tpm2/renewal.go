package tpm2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// Renewal is what a key that is made from a token would demand. The header is not
// trusted to say it: the person decides, unless the conditions are authentic.
type Renewal struct {
	// Old is what the token says it demands, New what the new key would. Both are
	// for people: "PCR 7 (sha256), PIN".
	Old, New string
	// Stated says that the options name the conditions of the new key, all of them,
	// so that nothing is taken from the header unseen.
	Stated bool
	// Values says that the options give values of PCRs.
	Values bool
}

// Renewal looks at a token before [Handler.Reseal] or [Handler.ChangePIN]. An
// ErrUsage says which option contradicts the token.
func (h *Handler) Renewal(ctx context.Context, req *ResealRequest) (*Renewal, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	old, err := parseToken(req.Token.Raw)
	if err != nil {
		return nil, tokens.FailureOf(req.Token, typeName, err)
	}
	s, err := h.settingsOf(old, req)
	if err != nil {
		return nil, err
	}
	if !req.KeepPolicy {
		if err := s.refuseLate(h); err != nil {
			return nil, err
		}
	}
	made := s.token()
	r := &Renewal{Old: demands(old), New: demands(made), Values: s.valuesGiven()}
	if h.StatesConditions() {
		r.Stated, err = h.states(req, made)
	}
	return r, err
}

// states reports whether the options, taken for a fresh enrolment, give the
// conditions of the new key. Those of another enrolment are refused if they are more
// than other PCRs.
func (h *Handler) states(req *ResealRequest, made *token) (bool, error) {
	fresh, err := h.settings(&tokens.EnrollRequest{Volume: req.Volume, Compat: req.Compat})
	if err != nil {
		return false, err
	}
	want := fresh.token()
	if want.PCRs&^chip.PCRSetOf(policy.LatchPCR) == made.PCRs&^chip.PCRSetOf(policy.LatchPCR) {
		want.PCRs = made.PCRs // a latch is kept
	}
	if want.sameConditions(made) && !made.cheaper(want) {
		return true, nil
	}
	if h.onlyPCRsStated() {
		return false, nil
	}
	return false, tokens.WithHint(usage("the options want %s, the token %s", demands(want), demands(made)),
		"enrol another with these options, then wipe this one")
}

// onlyPCRsStated reports whether the options change nothing but PCRs, which
// re-sealing may.
func (h *Handler) onlyPCRsStated() bool {
	return !h.WantsPIN() && h.PublicKey == nil && h.PublicKeyPCRs == nil && h.PublicKeyRef == nil && !h.Latch
}

// demands are conditions in words, with the key that signs and the cost of a guess
// at the PIN.
func demands(t *token) string {
	list := t.requires()
	for i, text := range list {
		switch {
		case strings.HasPrefix(text, "signed PCR") && t.Key != nil && t.Key.RSA != nil:
			list[i] = fmt.Sprintf("%s by key %x", text, t.Key.Fingerprint[:8])
		case text == "PIN" && t.argon != nil:
			list[i] = fmt.Sprintf("PIN (Argon2id, %d KiB, %d passes)", t.argon.kib(), t.argon.Iterations)
		}
	}
	return strings.Join(list, ", ")
}

// cheaper reports whether a guess at the PIN of a token costs less than at that of
// another.
func (t *token) cheaper(o *token) bool {
	return t.argon != nil && o.argon != nil && (t.argon.kib()*t.argon.Iterations < o.argon.kib()*o.argon.Iterations || t.argon.kib() < o.argon.kib())
}

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

// checkConsistent refuses a token that contradicts itself.
func checkConsistent(raw luks2.Token, t *token) error {
	if !t.Contradict(t.policy) {
		return nil
	}
	return contradiction(raw)
}

func contradiction(raw luks2.Token) error {
	return tokens.FailureOf(raw, typeName, tokens.WithHint(errContradiction,
		"open the volume with a passphrase or the recovery key, enrol anew and wipe this keyslot"))
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
