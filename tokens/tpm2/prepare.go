package tpm2

import (
	"bytes"
	"cmp"
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
	"luksmith/tokens/tpm2/policy"
)

// enrolment is one Enroll on its way.
type enrollment struct {
	h  *Handler
	s  *settings
	ui tokens.UI
	c  *chip.Conn // nil: sealed without the TPM
	o  *opener

	t       *token         // what is being made
	values  chip.PCRValues // of the literal PCRs: given or read
	present chip.PCRValues // as the TPM has them now; nil offline
	product string
	events  []eventlog.Event // of this boot
	askPIN  func(context.Context) (secret.Secret, error)
	secret  secret.Secret
	proven  bool // the new token gave the key back
	doubt   string
	latched bool       // all but the latch, which is closed in this boot, was satisfied
	boot    *BootEntry // that leads to the state, see [Handler.SealForBoots]
}

// newEnrolment prepares to make a token. c is nil to seal without the TPM.
func (h *Handler) newEnrollment(s *settings, c *chip.Conn, ui tokens.UI) *enrollment {
	return &enrollment{h: h, s: s, ui: ui, c: c,
		o: &opener{h: h, c: c, ui: ui, volume: s.req.Volume, signatures: s.signatures}}
}

// prepare finds out everything that decides the policy.
func (e *enrollment) prepare() error {
	e.t = e.s.token()
	var err error
	if e.t.Parent, err = e.parent(); err != nil {
		return err
	}
	e.t.primaryAlg = e.t.Parent.Algorithm()
	e.noteOtherParent(e.t.Parent)
	e.events = e.h.Paths.bootEvents()
	if err := e.readPCRs(); err != nil {
		return err
	}
	if e.product, err = e.c.Product(); err != nil {
		return err
	}
	e.setPolicies()
	return nil
}

// prepareOffline is prepare without a TPM.
func (e *enrollment) prepareOffline() {
	e.t = e.s.token()
	e.t.Parent, e.t.primaryAlg, e.values = e.s.offline, e.s.offline.Algorithm(), e.s.given(e.t.Bank)
	e.setPolicies()
}

// conditions are those of the token to be, as far as the options decide them.
func (s *settings) conditions() policy.Conditions {
	c := policy.Conditions{PCRs: s.pcrs.Set, Bank: s.pcrs.Bank, PIN: s.pin != PINNone, Key: s.key, SignedPCRs: s.signedPCRs, Ref: s.ref, PCRLock: s.pcrlock != nil}
	if s.pcrlock != nil {
		c.NVIndex = s.pcrlock.NVIndex
	}
	return c
}

// token is the token to be, as far as the options decide it.
func (s *settings) token() *token {
	t := &token{Conditions: s.conditions()}
	if s.pin == PINArgon2id {
		t.argon = &s.argon
	}
	if t.Bank == 0 {
		t.Bank = chip.BankSHA256
	}
	return t
}

func (e *enrollment) setPolicies() {
	e.t.policy = nil
	for _, kind := range e.t.Shards() {
		e.t.policy = append(e.t.policy, e.t.Digest(kind, e.values, 65537))
	}
}

// parent returns the storage key to seal under and makes it when the TPM has
// none yet.
func (e *enrollment) parent() (*chip.Parent, error) {
	if e.s.compat < sinceSRK {
		return e.o.parentOf(&token{primaryAlg: "ecc"})
	}
	handle := cmp.Or(e.s.handle, chip.HandleSRK)
	public, err := e.c.ReadPublic(handle)
	switch {
	case err == nil:
		p, err := chip.NewParent(handle, public)
		if err != nil {
			return nil, fmt.Errorf("the key at handle %#x %w; name another with --tpm2-seal-key-handle=", uint32(handle), err)
		}
		return p, nil
	case !chip.Failed(err, tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0):
		return nil, err
	case e.s.handle != 0:
		return nil, tokens.Usagef("the TPM has no key at handle %#x", uint32(e.s.handle))
	}
	return e.c.MakeSRK()
}

// noteOtherParent says when tokens of the volume were sealed under another key at
// the same handle: the TPM was cleared or exchanged since.
func (e *enrollment) noteOtherParent(p *chip.Parent) {
	for _, raw := range e.s.req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		if old, err := parseToken(raw.Raw); err == nil && old.Parent != nil && old.Parent.Handle == p.Handle && !bytes.Equal(old.Parent.Public, p.Public) {
			e.s.note(noteInfo, "%s was sealed by another TPM, or this one was cleared since; it cannot be opened here.", sentence(tokens.TokenText(raw, typeName)))
		}
	}
}
