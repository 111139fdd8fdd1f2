package tpm2

import (
	"errors"

	"luksmith/tokens"
)

// explain turns the reasons of policyRun into what the user is told.
func (o *opener) explain(r *policyRun, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errPCRsDiffer), errors.Is(err, errNoSignature), errors.Is(err, errNotPredicted):
		return &tokens.PolicyError{Bank: r.t.bank.String(), Detail: err.Error()}
	}
	return err
}
