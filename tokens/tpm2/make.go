package tpm2

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// make seals, writes the token and proves it.
func (e *enrollment) make(ctx context.Context, r replacement) (*tokens.Enrollment, error) {
	keys, pin, err := e.newPIN(ctx)
	if err != nil {
		return nil, err
	}
	defer pin.Wipe()
	defer keys.wipe()
	e.secret = secret.Random(sealedSecretSize * len(e.t.policy))
	defer e.secret.Wipe()
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
		Requires: e.t.requires(), Crypttab: e.h.crypttab(e.s, e.t.Parent), Notes: e.s.texts()}, nil
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
			return pinKeys{}, usage("systemd %d cannot use this PIN; choose another", e.s.compat)
		}
	}
}

// prove unseals the new token as it will stand in the header.
func (e *enrollment) prove(raw []byte, pin, passphrase secret.Secret) error {
	if e.c == nil {
		e.doubt = withoutTPM
		e.s.note(noteUnproven, "Sealed without the TPM: whether it opens can only be tested on the machine itself.")
		return nil
	}
	t, err := parseToken(raw)
	if err != nil {
		return fmt.Errorf("reading back the new token: %w", err)
	}
	o := *e.o
	o.knownPIN, o.attempt = pin, 0
	if e.t.Parent != nil && t.Parent == nil {
		o.primaries = map[string]*chip.Parent{t.primaryAlg: e.t.Parent}
	}
	got, err := o.open(t)
	if err == nil {
		defer got.Wipe()
		if !got.Equal(passphrase) {
			return errors.New("the TPM gives another key back than was sealed")
		}
		e.proven = true
		return nil
	}
	if onlyLatched(err) {
		e.latched, e.doubt = true, "the latch is closed in this boot"
		e.s.note(noteUnproven, "The latch is closed in this boot, so the token opens from the next one on.")
		return nil
	}
	if e.unprovable(err) && !e.h.signatureGiven() {
		e.doubt = err.Error()
		if e.s.valuesGiven() { // as was to be expected
			e.s.note(noteInfo, "Not tested now: it is for the PCR values that were given.")
		} else {
			e.s.note(noteUnproven, "Whether the token opens could not be tested: %v.", err)
		}
		return nil
	}
	return fmt.Errorf("testing the new token: %w", err)
}

// keepUntilProven lets a token that works, or did, stay beside a new one that may
// not.
func (e *enrollment) keepUntilProven(r *replacement) {
	if e.proven || e.latched || r.samePolicy {
		return
	}
	for _, id := range r.replaces {
		e.s.note(noteUnproven, "%s stays until the new one has opened the volume; then wipe it.", sentence(e.slotOf(id)))
	}
	r.replaces = nil
}

// unprovable reports whether an object does not open just because the state that
// it is meant for is not the present one.
func (e *enrollment) unprovable(err error) bool {
	if !errors.Is(err, tokens.ErrPolicy) {
		return false
	}
	return !e.isPresentState() || e.s.key != nil || e.s.pcrlock != nil
}

// isPresentState reports whether the literal PCRs have the values now that the
// token is bound to.
func (e *enrollment) isPresentState() bool {
	return maps.EqualFunc(e.values, e.present, bytes.Equal)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, see crypto/rand
	return b
}

// seal makes one sealed object for every part of the secret.
func (e *enrollment) seal(keys pinKeys) error {
	e.t.blobs = nil
	for i, policy := range e.t.policy {
		part := secret.Copy(e.secret.Bytes()[i*sealedSecretSize : (i+1)*sealedSecretSize])
		object := chip.Object{Policy: policy, Auth: keys.auth, Data: part}
		var blob chip.Blob
		var err error
		if e.c == nil {
			blob, err = chip.SealOffline(e.t.Parent, object)
		} else {
			blob, err = e.c.Seal(e.t.Parent, object)
		}
		part.Wipe()
		if err != nil {
			return err
		}
		e.t.blobs = append(e.t.blobs, blob)
	}
	return nil
}
