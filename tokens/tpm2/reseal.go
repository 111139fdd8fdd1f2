package tpm2

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// ResealRequest asks for a token to be bound to the present state of the machine.
type ResealRequest struct {
	Volume tokens.Volume
	Token  luks2.Token // one of Volume.Tokens, of this type
	// Compat is the oldest systemd that must read the new token.
	Compat int
	// Label is the name of the new token; empty keeps the old one.
	Label string
	// IfNeeded makes nothing new while the token opens: the result is then
	// Unchanged. A token with a PIN counts as opening when all but the PIN fits.
	IfNeeded bool
	// KeepOld leaves the old token beside the new one, for a rollback of the
	// update: it is not in Replaces.
	KeepOld bool
	// KeepPolicy says that [Handler.Renewal] is asked for a change of the PIN.
	KeepPolicy bool
	// Authentic says that somebody with the volume key vouches for the conditions
	// of the token.
	Authentic bool
}

// Reseal makes a new key with the options and the label of an old token, bound to
// the present PCR values, or to those of --tpm2-pcrs=. It proves the new token
// like Enroll. The PIN, if there is one, stays: it is asked for once and checked
// by the old sealed object, whose policy need not be satisfied for that; when the
// TPM no longer loads that object a note says that the PIN could not be checked.
//
// The caller adds the keyslot, opens it, and only then removes what Replaces
// names.
func (h *Handler) Reseal(ctx context.Context, req *ResealRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	old, err := parseToken(req.Token.Raw)
	if err != nil {
		return nil, tokens.FailureOf(req.Token, typeName, err)
	}
	if reason := old.unusable(); reason != "" {
		return nil, tokens.FailureOf(req.Token, typeName, fmt.Errorf("%w: %s", tokens.ErrUnsupported, reason))
	}
	if err := checkConsistent(req.Token, old); err != nil {
		return nil, err
	}
	s, err := h.settingsOf(old, req)
	if err != nil {
		return nil, err
	}
	c, err := h.connect(ctx, h.device)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e := h.newEnrollment(s, c, ui)
	if req.IfNeeded {
		state := e.o.check(&candidate{req.Token, old}, nil)
		if state.State.Fits() {
			return &tokens.Enrollment{KDF: luks2.MinimalKDF, Unchanged: req.Token.ID, Label: old.extra.Label, Requires: old.requires(), Crypttab: h.crypttab(s, old.Parent)}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := s.refuseLate(h); err != nil {
		return nil, err
	}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	if err := e.inVain(&candidate{req.Token, old}); err != nil {
		return nil, err
	}
	if twin := e.twin(req); twin >= 0 {
		return e.unchanged(twin), nil
	}
	e.askPIN = func(context.Context) (secret.Secret, error) { return e.presentPIN(old) }
	r := replacement{unchanged: -1}
	if !req.KeepOld {
		r.replaces = []int{req.Token.ID}
	}
	return e.make(ctx, r)
}

// twin is a token that is what would be made beside the old one, -1 without one. It
// counts if the TPM opens it now, or it is for other values that were asked for.
func (e *enrollment) twin(req *ResealRequest) int {
	if !req.KeepOld {
		return -1
	}
	for _, raw := range req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		t, err := parseToken(raw.Raw)
		if err != nil || !slices.Equal(t.policy, e.t.policy) || !t.sameConditions(e.t) || !e.sameParent(t) {
			continue
		}
		if e.o.check(&candidate{raw, t}, nil).State.Fits() || !e.isPresentState() {
			return raw.ID
		}
	}
	return -1
}

// inVain refuses to make a new key under the policy of an old one that the present
// state does not satisfy: what is missing is a signature or a prediction.
func (e *enrollment) inVain(old *candidate) error {
	if !slices.Equal(old.parsed.policy, e.t.policy) {
		return nil
	}
	if state := e.o.check(old, nil); state.State == OtherState {
		return tokens.FailureOf(old.raw, typeName, fmt.Errorf("a new key would be under the same policy: %w", state.Err))
	}
	return nil
}

// settingsOf are the options that a token was made with.
func (h *Handler) settingsOf(old *token, req *ResealRequest) (*settings, error) {
	label := req.Label
	if label == "" {
		label = old.extra.Label
	}
	s := &settings{
		req:    &tokens.EnrollRequest{Volume: req.Volume, Label: label, Compat: req.Compat},
		compat: req.Compat, pcrs: old.selection(), signedPCRs: old.SignedPCRs, ref: old.Ref,
	}
	if s.compat == 0 {
		s.compat = newestSystemd
	}
	if h.pcrs.Set != 0 {
		s.pcrs = h.pcrs
		if old.Latched() && !s.pcrs.Set.Has(policy.LatchPCR) {
			if err := s.addLatch(); err != nil {
				return nil, err
			}
		}
	}
	if old.SignedPCRs != 0 {
		s.key = old.Key
	}
	if old.PIN {
		s.pin = pinDirect
	}
	if old.PIN && old.argon != nil {
		s.pin, s.argon = pinArgon2id, *old.argon
	}
	if old.otherParent() {
		s.handle = old.Parent.Handle
	}
	var err error
	if s.signatures, err = h.loadSignatures(); err != nil {
		return nil, usage("%w", err)
	}
	if old.PCRLock {
		if s.pcrlock, err = h.loadPCRLock(); err != nil {
			return nil, usage("%w", err)
		}
		if s.pcrlock == nil {
			return nil, usage("the token has a pcrlock policy, and no policy file was found")
		}
	}
	return s, s.readableBy(old)
}

// readableBy refuses to make what the wanted systemd would not read.
func (s *settings) readableBy(old *token) error {
	for _, p := range old.properties() {
		if p.kept {
			if err := s.needs(p.since, p.what); err != nil {
				return err
			}
		}
	}
	return nil
}

// selection is --tpm2-pcrs= for the same PCRs with their present values. The
// latch keeps its value: by the time of a reseal the volume key has been measured.
func (t *token) selection() chip.Selection {
	s := chip.Selection{Set: t.PCRs, Bank: t.Bank, Values: chip.PCRValues{}}
	if t.PCRs == 0 {
		s.Bank = 0
	}
	if t.Latched() {
		s.Values[policy.LatchPCR] = nil // zero, see settings.given
		if recorded := t.recorded(); recorded != nil {
			s.Values[policy.LatchPCR] = recorded[policy.LatchPCR]
		}
	}
	return s
}

// presentPIN asks for the PIN of an old token until the old object accepts it. A
// TPM that does not load the object cannot check it: then it is typed twice like a
// new one.
func (e *enrollment) presentPIN(old *token) (secret.Secret, error) {
	pin, err := e.oldPIN(old)
	if !errors.Is(err, tokens.ErrOtherDevice) {
		return pin, err
	}
	e.s.note(noteInfo, "The TPM no longer loads the old key, so the PIN could not be checked; the new token has it as typed.")
	return e.ui.Ask(e.c.Context(), tokens.Prompt{Text: "PIN for the new key, which this TPM cannot check", Credential: "tpm2-pin", New: true})
}

// oldPIN asks for the PIN of an old token until the old object accepts it.
// ErrOtherDevice says that the TPM does not load the object.
func (e *enrollment) oldPIN(old *token) (secret.Secret, error) {
	p, err := e.o.parentOf(old)
	if err != nil {
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
