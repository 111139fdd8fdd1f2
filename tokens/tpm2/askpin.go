package tpm2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// trusts refuses a PIN to a storage key that is not one of those that were named
// outside the header: whoever has its private part could guess the PIN from what the
// session says, and loading the object proves nothing.
func (h *Handler) trusts(t *token, p *chip.Parent) error {
	known := func(name []byte) bool { return bytes.Equal(name, p.Name()) }
	if !t.PIN || len(h.StorageKeys) == 0 || slices.ContainsFunc(h.StorageKeys, known) {
		return nil
	}
	return tokens.WithHint(fmt.Errorf("%w: the storage key has the name %x, which luksmith-tpm2-srk= does not list, so it gets no PIN", tokens.ErrOtherDevice, p.Name()),
		"if the TPM was exchanged on purpose, enrol it anew and write the line that is printed then")
}

// withPIN asks for the PIN until use succeeds, the person gives up or the TPM
// locks. One answer is one try.
func (o *opener) withPIN(t *token, use func(keys pinKeys, pin secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	if t.argon != nil {
		if err := t.argon.affordable(); err != nil {
			return secret.Secret{}, err
		}
	}
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

func (o *opener) tryPIN(t *token, pin secret.Secret, use func(pinKeys, secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	keys, err := derivePIN(o.c.Context(), pin, t.salt, t.argon)
	if err != nil {
		return secret.Secret{}, err
	}
	defer keys.wipe()
	if err := o.c.Context().Err(); err != nil { // not every way of deriving looks
		return secret.Secret{}, err
	}
	return use(keys, pin)
}

// isWrongPIN tells a refused PIN. TPM_RC_AUTH_FAIL counts towards the lockout,
// TPM_RC_BAD_AUTH comes from objects that do not count.
func isWrongPIN(err error) bool { return chip.Failed(err, tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth) }

// askPIN asks once. An empty answer leaves the token without a try.
func (o *opener) askPIN(t *token) (secret.Secret, error) {
	if o.knownPIN.Len() > 0 {
		if o.attempt > 0 {
			return secret.Secret{}, tokens.ErrNoPrompt
		}
		return o.knownPIN.Clone(), nil
	}
	text := o.pinText
	if text == "" {
		text = "PIN of the TPM" + t.label() + o.volumeName()
	}
	pin, err := o.ui.Ask(o.c.Context(), tokens.Prompt{
		Text: text, Credential: "tpm2-pin", Attempt: o.attempt, Keyring: "tpm2-pin",
		Tries: func(context.Context) (int, error) { return o.triesLeft() }, Check: checkTyped,
	})
	if err == nil && pin.Len() == 0 {
		err = fmt.Errorf("%w: the answer was empty", tokens.ErrNoPrompt)
	}
	return pin, err
}

// checkTyped refuses what is the PIN of no object. An empty answer is one of a person
// who wants to be asked for something else.
func checkTyped(pin secret.Secret) error {
	if pin.Len() == 0 {
		return nil
	}
	return checkPIN(pin)
}

// volumeName is what the prompt calls the volume.
func (o *opener) volumeName() string {
	for _, name := range []string{o.volume.Name, o.volume.Label, o.volume.Device} {
		if name != "" {
			return " for " + name
		}
	}
	return ""
}

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
