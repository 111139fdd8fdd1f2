package tpm2

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// withPIN asks for the PIN until use succeeds, the person gives up or the TPM
// locks. One answer is one try.
func (o *opener) withPIN(t *token, use func(keys pinKeys, pin secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	var wrong error
	for range maxPINAttempts {
		pin, err := o.askPIN(t)
		if err != nil {
			return secret.Secret{}, o.withTries(pinError(err, wrong))
		}
		got, err := o.tryPIN(t, pin, use)
		pin.Wipe()
		if !isWrongPIN(err) {
			return got, o.lockedError(err)
		}
		o.attempt++
		wrong = tokens.ErrWrongPIN
	}
	return secret.Secret{}, o.withTries(wrong)
}

// withTries adds to a wrong PIN how many are left.
func (o *opener) withTries(err error) error {
	if !errors.Is(err, tokens.ErrWrongPIN) {
		return err
	}
	left, lerr := o.triesLeft()
	switch {
	case errors.Is(lerr, tokens.ErrLocked):
		return fmt.Errorf("%w, and now %w", err, lerr)
	case lerr != nil:
		return err
	}
	return fmt.Errorf("%w; %s", err, tokens.Tries(left))
}

// pinError is what to report when there is no PIN: that the one before was wrong,
// if nobody could be asked for another.
func pinError(err, wrong error) error {
	if wrong != nil && errors.Is(err, tokens.ErrNoPrompt) {
		return wrong
	}
	return err
}

// lockedError adds to the TPM's refusal of all PINs when it will take one again.
func (o *opener) lockedError(err error) error {
	if !chip.Failed(err, tpm2.TPMRCLockout) {
		return err
	}
	l, lerr := o.c.Lockout()
	if lerr != nil {
		return err
	}
	l.Locked = true
	return l.Err()
}

// isWrongPIN tells a refused PIN. TPM_RC_AUTH_FAIL counts towards the lockout,
// TPM_RC_BAD_AUTH comes from objects that do not count.
func isWrongPIN(err error) bool { return chip.Failed(err, tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth) }

// triesLeft is how many wrong PINs the TPM takes before it locks. A TPM that is
// locked is an error.
func (o *opener) triesLeft() (int, error) {
	l, err := o.c.Lockout()
	if err != nil {
		return 0, err
	}
	if err := l.Err(); err != nil {
		return 0, err
	}
	return l.Left(), nil
}
