package tpm2

import "luksmith/tokens"

// extra is our member of the token.
type extra struct {
	tokens.Extra
	TPM2 *record `json:"tpm2,omitempty"`
}

// record is what diagnosis needs to know of the enrolment. It is untrusted: see
// token.recorded.
type record struct {
	// PCRs are the values of the literally bound PCRs, by number.
	PCRs map[string][]byte `json:"pcrs,omitempty"`
}
