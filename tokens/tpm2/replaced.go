package tpm2

import (
	"fmt"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

// replacement says what a new token means for those that are there.
type replacement struct {
	unchanged *luks2.Token // that already does it, if there is one
	replaces  []int        // ids
	// samePolicy says that the policy is that of the token to be replaced, so
	// that nothing is lost if it is not satisfied now.
	samePolicy bool
}

// findReplaced looks for tokens that the new one supersedes: those made with the
// same options, and one that bears the wanted name. Other TPM2 tokens stay.
func (e *enrollment) findReplaced() replacement {
	r := replacement{}
	for _, raw := range e.s.req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		old, err := parseToken(raw.Raw)
		if err != nil {
			continue
		}
		label := tokens.LabelText(e.s.req.Label)
		switch {
		case label != "" && old.extra.Label != "" && label != old.extra.Label:
		case e.sameOptions(old):
			if !old.PIN && r.unchanged == nil && e.stillGood(raw, old) {
				r.unchanged = &raw
				continue
			}
			r.replaces = append(r.replaces, raw.ID)
			if old.PIN {
				e.s.note(noteInfo, "%s, made with the same options, is replaced and its PIN with it.", sentence(tokens.TokenText(raw, typeName)))
			}
		case label != "" && label == old.extra.Label:
			r.replaces = append(r.replaces, raw.ID)
		}
	}
	return r
}

// sameOptions reports whether a token was made with the options of this
// enrolment, whatever values the PCRs had.
func (e *enrollment) sameOptions(old *token) bool {
	sameBank := old.Bank == e.t.Bank || e.t.PCRs|e.t.SignedPCRs == 0 || e.s.pcrs.Bank == 0
	return sameBank && old.sameConditions(e.t) && e.sameParent(old)
}

// sameParent reports whether a token is sealed under the handle that this one
// will use. The key there may be another by now.
func (e *enrollment) sameParent(old *token) bool {
	if old.Parent == nil || e.s.compat < sinceSRK {
		return old.Parent == nil && e.s.compat < sinceSRK
	}
	return old.Parent.Handle == e.t.Parent.Handle
}

// stillGood reports whether an old token opens now, or would if the PCRs had the
// values that were asked for.
func (e *enrollment) stillGood(raw luks2.Token, old *token) bool {
	if e.s.valuesGiven() && !old.policy.Equal(e.t.policy) {
		return false // it is for other values
	}
	got, err := e.o.open(old)
	if err == nil {
		defer got.Wipe()
		return e.s.req.Check(e.c.Context(), raw, got) == nil
	}
	e.doubt = err.Error()
	return e.unprovable(err) && old.policy.Equal(e.t.policy)
}

// unchanged is the result when a token does already what was asked for. Dead ones
// beside it are left alone: nothing is to be written.
func (e *enrollment) unchanged(t *luks2.Token) *tokens.Enrollment {
	return &tokens.Enrollment{KDF: luks2.MinimalKDF, Unchanged: t, Doubt: e.doubt, Label: e.s.req.Label, Requires: e.t.requires(), Crypttab: e.crypttab(), Notes: e.s.texts()}
}

func (e *enrollment) slotOf(id int) string {
	for _, t := range e.s.req.Volume.Tokens {
		if t.ID == id {
			return tokens.TokenText(t, typeName)
		}
	}
	return fmt.Sprintf("token %d", id)
}

// sentence begins with a capital.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
