package fido2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// Unlock implements [tokens.Unlocker]. Pre-flights find out which key holds which
// credential before anybody is asked for anything. A wrong PIN ends the tries of
// that key for this call, whatever the number of tokens; call again to ask again.
// A touch is asked for until ctx ends.
func (h *Handler) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	u := &unlocking{h: h, req: req}
	if err := u.collect(); err != nil {
		return nil, err
	}
	if len(u.wanted) == 0 {
		return nil, cmp.Or(errors.Join(u.failures...), fmt.Errorf("%w: no token to unlock with", tokens.ErrNoDevice))
	}
	ks, err := h.openKeys(ctx, h.UnlockDevice, ui)
	if err != nil {
		return nil, u.with(err)
	}
	defer ks.close()
	if err := u.match(ctx, ks); err != nil {
		return nil, err
	}
	return u.tryAll(ctx, ks)
}

// unlocking is one call of Unlock.
type unlocking struct {
	h        *Handler
	req      *tokens.UnlockRequest
	wanted   []*wanted
	matches  []*match
	failures []error
}

// wanted is a token, or the parameters in its place, that could unlock.
type wanted struct {
	token luks2.Token
	p     *parameters
	found bool // some key may hold its credential
}

// match is a token and a key that may hold its credential.
type match struct {
	*wanted
	k  *key
	by certainty
	// turn is that of its next ceremony, turns how many it had.
	turn, turns int
}

func (u *unlocking) fail(t luks2.Token, err error) {
	u.failures = append(u.failures, tokens.FailureOf(t, typeName, err))
}

// with adds the failures so far to an error that ends the call.
func (u *unlocking) with(err error) error {
	return errors.Join(append([]error{err}, u.failures...)...)
}

// collect parses the tokens, or takes the parameters of crypttab.
func (u *unlocking) collect() error {
	if u.req.KeyData.Len() > 0 {
		p, err := u.h.parameters(u.req.KeyData)
		if err != nil {
			return err
		}
		u.wanted = []*wanted{{token: luks2.Token{ID: -1, Type: Type}, p: p}}
		return nil
	}
	restricted := !auto(u.h.UnlockDevice) && !isPath(u.h.UnlockDevice)
	labelled := slices.ContainsFunc(u.req.Tokens, func(t luks2.Token) bool { return tokens.Label(t.Raw) == u.h.UnlockDevice })
	for _, t := range u.req.Tokens {
		p, err := parse(t)
		switch {
		case err != nil:
			u.fail(t, err)
		case restricted && labelled && p.label != u.h.UnlockDevice:
		default:
			u.wanted = append(u.wanted, &wanted{token: t, p: p})
		}
	}
	return nil
}

// parameters are those of crypttab with a salt, which is borrowed.
func (h *Handler) parameters(salt secret.Secret) (*parameters, error) {
	switch {
	case len(h.Credential) == 0:
		return nil, tokens.Usagef("a FIDO2 salt without fido2-cid=")
	case salt.Len() != SaltSize:
		return nil, tokens.Usagef("the FIDO2 salt has %d bytes instead of %d", salt.Len(), SaltSize)
	}
	optional := func(b *bool) need {
		if b == nil {
			return ifAsked
		}
		return needOf(*b)
	}
	return &parameters{credential: h.Credential, salt: salt.Bytes(), rp: cmp.Or(h.RP, DefaultRP),
		pin: optional(h.NeedPIN), up: optional(h.NeedUP), uv: optional(h.NeedUV)}, nil
}

// match runs the pre-flights and puts the matches in the order in which they are
// to be tried: sure ones first, keys without a wrong PIN first, keys of the enrolled
// model first, cheap ones first.
func (u *unlocking) match(ctx context.Context, ks *keys) error {
	for _, k := range ks.list {
		if !u.permitted(k) {
			continue
		}
		for _, w := range u.wanted {
			if k.dead != nil {
				break
			}
			c, err := k.holds(ctx, w.p)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			switch {
			case err != nil:
				k.refused(err)
			case c != absent:
				w.found = true
				u.matches = append(u.matches, &match{wanted: w, k: k, by: c})
			}
		}
	}
	slices.SortStableFunc(u.matches, func(a, b *match) int {
		return cmp.Or(
			cmp.Compare(b.by, a.by),
			cmp.Compare(u.h.wrongPINs[a.k.device.Path], u.h.wrongPINs[b.k.device.Path]),
			cmp.Compare(a.otherModel(), b.otherModel()),
			cmp.Compare(a.p.cost(), b.p.cost()),
			cmp.Compare(a.token.ID, b.token.ID))
	})
	return nil
}

// otherModel is 1 if the token was made with a key of another model.
func (m *match) otherModel() int {
	if id := m.p.extra.AAGUID; id == "" || id == formatAAGUID(m.k.info.AAGUID) {
		return 0
	}
	return 1
}

// permitted is for a device given by product name.
func (u *unlocking) permitted(k *key) bool {
	name := u.h.UnlockDevice
	if auto(name) || isPath(name) || slices.ContainsFunc(u.wanted, func(w *wanted) bool { return w.p.label == name }) {
		return true
	}
	return name == k.name || name == k.device.Product
}

func (u *unlocking) tryAll(ctx context.Context, ks *keys) (*tokens.Unlocked, error) {
	for i := 0; i < len(u.matches); i++ {
		m := u.matches[i]
		m.turn = u.turn(i)
		unlocked, err := u.try(ctx, m)
		switch {
		case err == nil:
			return unlocked, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		if m.by == possible && wire.CodeOf(err) == wire.NoCredentials {
			m.found = false // it was not this key's after all
			continue
		}
		if m.turn > 0 && m.k.dead == nil && wire.CodeOf(err) == wire.ActionTimeout {
			m.turns++
			u.matches = append(u.matches, m) // after the other keys
			continue
		}
		u.fail(m.token, err)
		if errors.Is(err, tokens.ErrCancelled) {
			return nil, errors.Join(u.failures...)
		}
	}
	return nil, u.outcome(ks)
}

// turn is 1 for a match that has to let another key have its turn after a time-out,
// 0 for one that need not.
func (u *unlocking) turn(i int) int {
	m := u.matches[i]
	waiting := slices.ContainsFunc(u.matches[i+1:], func(o *match) bool { return o.k != m.k && o.k.dead == nil })
	if waiting && m.turns < unlockRequests {
		return 1
	}
	return 0
}

// try derives the passphrase of a token and tries it.
func (u *unlocking) try(ctx context.Context, m *match) (*tokens.Unlocked, error) {
	if m.k.dead != nil {
		return nil, fmt.Errorf("not tried: %w", m.k.dead)
	}
	unlocked, d, err := u.tryAs(ctx, m, m.p)
	if !errors.Is(err, tokens.ErrWrongKey) {
		return unlocked, err
	}
	if !m.claimsPIN() {
		return nil, wrongKey(err, m, d)
	}
	without := *m.p
	without.pin = no
	unlocked, _, second := u.tryAs(ctx, m, &without)
	switch {
	case errors.Is(second, tokens.ErrWrongKey):
		return nil, wrongKey(err, m, d)
	case second == nil:
		m.k.ui.Note(fmt.Sprintf("The token of %s says that it needs the PIN and does not: systemd before 256 made such tokens, and cannot unlock with them. Enrol %s again.",
			tokens.TokenText(m.token, typeName), m.k.called(m.p.label)))
	}
	return unlocked, second
}

// claimsPIN reports whether the token may be one that systemd 252 to 255 recorded
// as needing the PIN although it was never asked for: on keys that make credentials
// without one, they derived the secret without one too. Found with systemd 252.
func (m *match) claimsPIN() bool {
	return m.token.ID >= 0 && m.p.pin == yes && m.p.uv != yes && !m.p.ours && m.k.info.Options["makeCredUvNotRqd"]
}

// tryAs is try with parameters that may differ from the token's. The outcome is
// there with ErrWrongKey too, without its secret.
func (u *unlocking) tryAs(ctx context.Context, m *match, p *parameters) (*tokens.Unlocked, *derived, error) {
	salt := secret.Copy(p.salt)
	defer salt.Wipe()
	d, err := m.k.derive(ctx, p, salt, ceremony{purpose: "to unlock", turn: m.turn})
	if err != nil {
		return nil, nil, err
	}
	defer d.secret.Wipe()
	passphrase := secret.Base64(d.secret)
	if err := u.req.Check(ctx, m.token, passphrase); err != nil {
		passphrase.Wipe()
		return nil, d, err
	}
	return &tokens.Unlocked{Token: m.token, Passphrase: passphrase}, d, nil
}

// wrongKey explains why a key that holds the credential gives another secret: it
// has one for verified users and one for others, and which it gives depends on
// flags that anybody can change who can write to the disk.
func wrongKey(err error, m *match, d *derived) error {
	verified := d.pin == yes || d.uv == yes
	switch {
	case m.p.pin == no && d.pin == yes:
		return fmt.Errorf("%w: it was enrolled without PIN, by %s, but %s demands one now", err, whose(m), m.k.name)
	case !verified && (m.k.hasPIN() || m.k.hasUV()):
		return fmt.Errorf("%w: with its PIN or a fingerprint %s gives another secret; %s may have been changed from true to false", err, m.k.name, whose(m))
	case verified:
		return fmt.Errorf("%w: without PIN and fingerprint %s gives another secret; %s may have been changed from false to true", err, m.k.name, whose(m))
	}
	return err
}

// whose names the flags that decide.
func whose(m *match) string {
	if m.token.ID < 0 {
		return "fido2-pin= or fido2-uv= in crypttab"
	}
	return fmt.Sprintf("%s or %s", memberPIN, memberUV)
}
