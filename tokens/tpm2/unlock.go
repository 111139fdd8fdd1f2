package tpm2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
)

// candidate is a token to be tried.
type candidate struct {
	raw    luks2.Token
	parsed *token
}

// Unlock tries tokens until one opens the volume, those without a PIN first.
func (h *Handler) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	list, errs := h.candidates(req)
	if len(list) == 0 {
		if len(errs) == 0 {
			return nil, fmt.Errorf("the volume has no TPM2 token to try: %w", tokens.ErrWrongKey)
		}
		return nil, errors.Join(errs...)
	}
	c, err := h.connect(ctx, h.unlockDeviceOr())
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	defer c.Close()
	o := &opener{h: h, c: c, ui: ui, volume: req.Volume}
	o.readPresent(list)
	defer func() { o.tell(errs) }()
	for _, cand := range list {
		o.slot = slotOption(cand.raw)
		if err := o.ruledOut(cand.parsed); err != nil {
			errs = append(errs, tokens.FailureOf(cand.raw, typeName, err))
			continue
		}
		if cand.parsed.PIN && o.locked != nil {
			continue // nobody is asked for a PIN that the TPM would refuse; it was said
		}
		got, err := o.try(req, cand)
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !errors.Is(err, tokens.ErrLocked) || o.locked == nil { // once for all tokens
			errs = append(errs, tokens.FailureOf(cand.raw, typeName, err))
		}
		if errors.Is(err, tokens.ErrLocked) {
			o.locked = err
		}
		if errors.Is(err, tokens.ErrCancelled) || c.Broken() {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// slotOption names the keyslot of a token on a command line of cryptenroll.
func slotOption(t luks2.Token) string {
	if len(t.Keyslots) != 1 {
		return ""
	}
	return fmt.Sprintf(" --slot=%d", t.Keyslots[0])
}

// unlockDeviceOr is the TPM to unlock with: that to enrol on, if no other was
// named.
func (h *Handler) unlockDeviceOr() string { return cmp.Or(h.UnlockDevice, h.Device) }

// DeviceOption names that TPM on a command line of cryptenroll.
func (h *Handler) DeviceOption() string {
	return "--tpm2-device=" + tokens.ShellWord(cmp.Or(h.unlockDeviceOr(), "auto"))
}

// try opens one token and lets the caller check the passphrase.
func (o *opener) try(req *tokens.UnlockRequest, cand *candidate) (*tokens.Unlocked, error) {
	passphrase, err := o.open(cand.parsed)
	if err != nil {
		return nil, err
	}
	if err := req.Check(o.c.Context(), cand.raw, passphrase); err != nil {
		passphrase.Wipe()
		return nil, err
	}
	return &tokens.Unlocked{Token: cand.raw, Passphrase: passphrase}, nil
}

// candidates parses the tokens of a request and orders them by cost. Malformed
// ones are errors; those that tpm2-pcrs= leaves out are not mentioned.
func (h *Handler) candidates(req *tokens.UnlockRequest) ([]*candidate, []error) {
	var list []*candidate
	var errs []error
	for _, raw := range req.Tokens {
		t, err := parseToken(raw.Raw)
		if err != nil {
			errs = append(errs, tokens.FailureOf(raw, typeName, err))
			continue
		}
		if h.OnlyPCRs == nil || *h.OnlyPCRs == t.PCRs {
			list = append(list, &candidate{raw, t})
		}
	}
	if req.KeyData.Len() > 0 {
		t, err := h.tokenFromKeyData(req.KeyData)
		if err != nil {
			errs = append(errs, &tokens.TokenError{ID: -1, Type: tokenType, Err: err})
		} else {
			list = append(list, &candidate{luks2.Token{ID: -1, Type: tokenType}, t})
		}
	}
	slices.SortStableFunc(list, func(a, b *candidate) int { return cmp.Compare(a.parsed.cost(), b.parsed.cost()) })
	return list, errs
}
