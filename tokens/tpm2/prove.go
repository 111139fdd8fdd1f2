package tpm2

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

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
	o.knownPIN, o.attempt, o.made = pin, 0, true
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
		switch {
		case e.boot != nil: // as was asked for
		case e.s.valuesGiven(): // as was to be expected
			e.s.note(noteInfo, "Not tested now: it is for the PCR values that were given.")
		default:
			e.s.note(noteUnproven, "Not tested now: %s.", strings.TrimPrefix(err.Error(), tokens.ErrPolicy.Error()+": "))
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
