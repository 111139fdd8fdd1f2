package tpm2

import (
	"bytes"
	"cmp"
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Matcher = (*Handler)(nil)

// Differs implements [tokens.Matcher]. Values that the options give for all PCRs
// count, and so does the TPM of --tpm2-device-key=.
func (h *Handler) Differs(req *tokens.EnrollRequest, raw luks2.Token) (string, error) {
	s, err := h.settings(req)
	if err != nil {
		return "", err
	}
	old, err := parseToken(raw.Raw)
	if err != nil {
		return "", tokens.FailureOf(raw, typeName, err)
	}
	made := s.token()
	if h.WithPIN == PINYes && !h.argon2idGiven() {
		made.argon = old.argon // how a PIN is stretched was the choice of the systemd of that time
	}
	switch {
	case s.pcrs.Bank != 0 && old.Bank != made.Bank && made.PCRs|made.SignedPCRs != 0, !old.sameConditions(made), h.argon2idGiven() && old.cheaper(made):
		if is, want := demands(old), demands(made); is != want {
			return fmt.Sprintf("it demands %s, not %s", cmp.Or(is, "nothing"), cmp.Or(want, "nothing")), nil
		}
		return "its policy is another", nil
	case s.offline != nil && (old.Parent == nil || !bytes.Equal(old.Parent.Public, s.offline.Public)):
		return "it is sealed for another storage key", nil
	case s.valuesGiven() && s.pcrs.Set&^s.pcrs.Values.Set() == 0 && !old.Explains(old.policy, s.given(made.Bank)):
		return "it is for other values of the PCRs", nil
	}
	return "", nil
}
