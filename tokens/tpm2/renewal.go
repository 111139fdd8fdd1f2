package tpm2

import (
	"context"
	"fmt"
	"strings"

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
	return false, tokens.WithHint(tokens.Usagef("the options want %s, the token %s", demands(want), demands(made)),
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
