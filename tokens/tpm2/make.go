package tpm2

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// make seals, writes the token and proves it.
func (e *enrollment) make(ctx context.Context, r replacement) (*tokens.Enrollment, error) {
	keys, pin, err := e.newPIN(ctx)
	if err != nil {
		return nil, err
	}
	defer pin.Wipe()
	defer keys.wipe()
	defer func() { e.secret.Wipe() }()
	if err := e.seal(keys); err != nil {
		return nil, e.o.lockedError(err)
	}
	raw, err := e.tokenJSON()
	if err != nil {
		return nil, err
	}
	passphrase, err := keys.passphrase(e.secret)
	if err != nil {
		return nil, err
	}
	if err := e.prove(raw, pin, passphrase); err != nil {
		passphrase.Wipe()
		return nil, err
	}
	if e.t.PCRs != 0 && e.isPresentState() {
		e.h.Paths.saveLog(e.t.policy[0], e.t.Bank, e.events)
	}
	e.keepUntilProven(&r)
	return &tokens.Enrollment{Passphrase: passphrase, KDF: luks2.MinimalKDF, Token: raw, Proven: e.proven, Doubt: e.doubt, Replaces: r.replaces, Label: e.s.req.Label,
		Requires: e.t.requires(), Crypttab: e.crypttab(), Notes: e.s.texts()}, nil
}

// tokenJSON writes the token in the newest form that the wanted systemd reads.
func (e *enrollment) tokenJSON() (json.RawMessage, error) {
	m := e.t.members(e.s.compat)
	m.Extra = e.extra()
	b, err := marshalToken(m)
	if err != nil {
		return nil, fmt.Errorf("writing the token: %w", err)
	}
	return b, nil
}

// extra records the state that the token is bound to.
func (e *enrollment) extra() *extra {
	return newExtra(tokens.NewExtra(e.s.req.Label, e.product), bootState{bank: e.t.Bank, values: e.values, events: e.events, boot: e.boot})
}

// newPIN gets the PIN of the new token. keys and pin are empty without one.
func (e *enrollment) newPIN(ctx context.Context) (keys pinKeys, pin secret.Secret, err error) {
	if !e.t.PIN {
		return keys, pin, nil
	}
	if e.askPIN == nil {
		e.askPIN = e.newPINText
	}
	if pin, err = e.askPIN(ctx); err != nil {
		return keys, pin, err
	}
	if err = checkPIN(pin); err == nil {
		keys, err = e.deriveNewPIN(ctx, pin)
	}
	if err == nil {
		err = ctx.Err() // deriving may have taken seconds
	}
	if err != nil {
		keys.wipe()
		pin.Wipe()
	}
	return keys, pin, err
}

// newPINText asks for a PIN that is not in use yet.
func (e *enrollment) newPINText(ctx context.Context) (secret.Secret, error) {
	return e.ui.Ask(ctx, tokens.Prompt{Text: "New PIN of the TPM", Credential: "tpm2-pin", New: true})
}

// deriveNewPIN chooses a salt. Software before systemd 254 uses auth values that
// end in zero bytes as they are, which the TPM refuses: those are avoided.
func (e *enrollment) deriveNewPIN(ctx context.Context, pin secret.Secret) (pinKeys, error) {
	for {
		if e.s.compat >= sinceSalt {
			e.t.salt = randomBytes(saltSize)
		}
		keys, err := derivePIN(ctx, pin, e.t.salt, e.t.argon)
		if err != nil {
			return pinKeys{}, err
		}
		if keys.auth.Len() == sealedSecretSize || e.s.compat >= sinceSRK {
			return keys, nil
		}
		keys.wipe()
		if e.t.salt == nil {
			return pinKeys{}, tokens.Usagef("systemd %d cannot use this PIN; choose another", e.s.compat)
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, see crypto/rand
	return b
}
