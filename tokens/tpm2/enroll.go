package tpm2

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"luksmith/luks2"
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
	latched bool // all but the latch, which is closed in this boot, was satisfied
}

// Enroll seals a new key and proves, from the token as it will be written, that
// it comes back.
func (h *Handler) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	s, err := h.settings(req)
	if err != nil {
		return nil, err
	}
	if s.pin == pinArgon2id && h.argon.iterTime > 0 {
		if err := s.argon.benchmark(ctx, h.argon); err != nil {
			return nil, err
		}
	}
	if s.offline != nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := h.newEnrollment(s, nil, ui)
		e.prepareOffline()
		return e.make(ctx, replacement{})
	}
	c, err := h.connect(ctx, h.device)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e := h.newEnrollment(s, c, ui)
	if err := e.prepare(); err != nil {
		return nil, err
	}
	r := e.findReplaced()
	if r.unchanged >= 0 {
		return e.unchanged(r.unchanged), nil
	}
	return e.make(ctx, r)
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
	c := policy.Conditions{PCRs: s.pcrs.Set, Bank: s.pcrs.Bank, PIN: s.pin != pinNone, Key: s.key, SignedPCRs: s.signedPCRs, Ref: s.ref, PCRLock: s.pcrlock != nil}
	if s.pcrlock != nil {
		c.NVIndex = s.pcrlock.NVIndex
	}
	return c
}

// token is the token to be, as far as the options decide it.
func (s *settings) token() *token {
	t := &token{Conditions: s.conditions()}
	if s.pin == pinArgon2id {
		t.argon = &s.argon
	}
	if t.Bank == 0 {
		t.Bank = chip.BankSHA256
	}
	return t
}

func (e *enrollment) setPolicies() {
	var nvName []byte
	if e.s.pcrlock != nil {
		nvName = e.s.pcrlock.NVIndex.Name
	}
	e.t.policy = nil
	for _, kind := range e.t.Shards() {
		e.t.policy = append(e.t.policy, e.t.Digest(kind, e.values, 65537, nvName))
	}
}

// replacement says what a new token means for those that are there.
type replacement struct {
	unchanged int   // id of a token that already does it, or -1
	replaces  []int // ids
	// samePolicy says that the policy is that of the token to be replaced, so
	// that nothing is lost if it is not satisfied now.
	samePolicy bool
}

// findReplaced looks for tokens that the new one supersedes: those made with the
// same options, and one that bears the wanted name. Other TPM2 tokens stay.
func (e *enrollment) findReplaced() replacement {
	r := replacement{unchanged: -1}
	for _, raw := range e.s.req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		old, err := parseToken(raw.Raw)
		if err != nil {
			continue
		}
		label := e.s.req.Label
		switch {
		case label != "" && old.extra.Label != "" && label != old.extra.Label:
		case e.sameOptions(old):
			if !old.PIN && r.unchanged < 0 && e.stillGood(raw, old) {
				r.unchanged = raw.ID
				continue
			}
			r.replaces = append(r.replaces, raw.ID)
			if old.PIN {
				e.s.note(noteInfo, "%s, made with the same options, is replaced and its PIN with it.", sentence(slotText(raw)))
			}
		case label != "" && label == old.extra.Label:
			r.replaces = append(r.replaces, raw.ID)
		}
	}
	return r
}

// sameOptions reports whether a token was made with the options of this
// enrolment, whatever values the PCRs had.
func (e *enrollment) sameOptions(old *token) bool {
	sameBank := old.Bank == e.t.Bank || e.t.PCRs|e.t.SignedPCRs == 0 || e.s.pcrs.Bank == 0
	return sameBank && old.sameConditions(e.t) && e.sameParent(old)
}

// sameParent reports whether a token is sealed under the handle that this one
// will use. The key there may be another by now.
func (e *enrollment) sameParent(old *token) bool {
	if old.Parent == nil || e.s.compat < sinceSRK {
		return old.Parent == nil && e.s.compat < sinceSRK
	}
	return old.Parent.Handle == e.t.Parent.Handle
}

// stillGood reports whether an old token opens now, or would if the PCRs had the
// values that were asked for.
func (e *enrollment) stillGood(raw luks2.Token, old *token) bool {
	if e.s.valuesGiven() && !slices.Equal(old.policy, e.t.policy) {
		return false // it is for other values
	}
	got, err := e.o.open(old)
	if err == nil {
		defer got.Wipe()
		return e.s.req.Check(e.c.Context(), raw, got) == nil
	}
	return e.unprovable(err) && slices.Equal(old.policy, e.t.policy)
}

// unchanged is the result when a token does already what was asked for. Dead ones
// beside it are left alone: nothing is to be written.
func (e *enrollment) unchanged(id int) *tokens.Enrollment {
	return &tokens.Enrollment{KDF: luks2.MinimalKDF, Unchanged: id, Label: e.s.req.Label, Requires: e.t.requires(), Crypttab: e.h.crypttab(e.s, e.t.Parent), Notes: e.s.texts()}
}

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
		return nil, err
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
	return &tokens.Enrollment{Passphrase: passphrase, KDF: luks2.MinimalKDF, Token: raw, Proven: e.proven, Doubt: e.doubt, Replaces: r.replaces, Unchanged: -1, Label: e.s.req.Label,
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
	return newExtra(tokens.NewExtra(e.s.req.Label, e.product), bootState{e.t.Bank, e.values, e.events})
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
		e.s.note(noteUnproven, "Whether the token opens could not be tested: %v.", err)
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

// slotText is what people know a token by.
func slotText(t luks2.Token) string {
	return cmp.Or(tokens.FailureOf(t, typeName, nil).Keyslot, fmt.Sprintf("token %d", t.ID))
}

func (e *enrollment) slotOf(id int) string {
	for _, t := range e.s.req.Volume.Tokens {
		if t.ID == id {
			return slotText(t)
		}
	}
	return fmt.Sprintf("token %d", id)
}

// sentence begins with a capital.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

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
