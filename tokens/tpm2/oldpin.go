package tpm2

import (
	"errors"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// presentPIN asks for the PIN of an old token until the old object accepts it. A
// TPM that does not load the object cannot check it: then it is typed twice like a
// new one.
func (e *enrollment) presentPIN(old *token) (secret.Secret, error) {
	pin, err := e.oldPIN(old)
	if _, refused := errors.AsType[*notNamedError](err); refused || !errors.Is(err, tokens.ErrOtherDevice) {
		return pin, err
	}
	e.s.note(noteInfo, "The TPM no longer loads the old key, so the PIN could not be checked; the new token has it as typed.")
	return e.ui.Ask(e.c.Context(), tokens.Prompt{Text: "PIN for the new key, which this TPM cannot check", Credential: "tpm2-pin", New: true})
}

// oldPIN asks for the PIN of an old token until the old object accepts it.
// ErrOtherDevice says that the TPM does not load the object.
func (e *enrollment) oldPIN(old *token) (secret.Secret, error) {
	if err := old.argon.affordable(); err != nil {
		return secret.Secret{}, err
	}
	p, err := e.o.parentOf(old)
	if err != nil {
		return secret.Secret{}, err
	}
	if err := e.o.trusts(old, p); err != nil {
		return secret.Secret{}, err
	}
	shards, err := e.o.load(old, p)
	defer e.o.release(shards)
	if err != nil {
		return secret.Secret{}, err
	}
	return e.o.withPIN(old, func(keys pinKeys, pin secret.Secret) (secret.Secret, error) {
		if err := e.c.CheckAuth(p, shards[0].object, keys.auth); err != nil {
			return secret.Secret{}, err
		}
		return pin.Clone(), nil
	})
}
