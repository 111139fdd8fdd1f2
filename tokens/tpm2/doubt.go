package tpm2

import "luksmith/tokens"

var _ tokens.Doubter = (*Handler)(nil)

// withoutTPM is why a key that was sealed from a public key file is not proven.
const withoutTPM = "it is sealed without asking the TPM"

// Doubt implements [tokens.Doubter].
func (h *Handler) Doubt(req *tokens.EnrollRequest) (why string, certain bool) {
	s, err := h.settings(req)
	switch {
	case err != nil:
		return "", false // Plan says it
	case s.offline != nil:
		return withoutTPM, true
	case s.valuesGiven():
		return "it is for the PCR values that were given, which need not be the present ones", false
	case s.key != nil && !h.signatureGiven():
		return "it needs a signature of the present PCR values, and none was named", false
	}
	return "", false
}
