package tpm2

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// trusts refuses a PIN to a storage key that is not one of those that were named
// outside the header: whoever has its private part could guess the PIN from what the
// session says, and loading the object proves nothing.
func (o *opener) trusts(t *token, p *chip.Parent) error {
	if !t.PIN || o.made {
		return nil
	}
	named := o.h.StorageKeys
	if o.h.RememberedKeys != nil {
		named = append(slices.Clone(named), o.h.RememberedKeys(o.volume)...)
	}
	if len(named) == 0 || slices.ContainsFunc(named, func(name []byte) bool { return bytes.Equal(name, p.Name) }) {
		return nil
	}
	return tokens.WithHint(&notNamedError{p.Name}, "if the TPM was exchanged on purpose, enrol it anew and write the line that is printed then")
}

// notNamedError is [tokens.ErrOtherDevice].
type notNamedError struct{ name []byte }

func (e *notNamedError) Error() string {
	return fmt.Sprintf("%v: the storage key has the name %x, which luksmith-tpm2-srk= does not list, so it gets no PIN", tokens.ErrOtherDevice, e.name)
}

func (e *notNamedError) Unwrap() error { return tokens.ErrOtherDevice }

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
