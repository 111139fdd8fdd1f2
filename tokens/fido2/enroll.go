package fido2

import (
	"context"
	"fmt"
	"strings"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// rpName is the name of the relying party that systemd gives new credentials.
const rpName = "Encrypted Volume"

// Plan implements [tokens.Enroller].
func (h *Handler) Plan(req *tokens.EnrollRequest) (string, error) {
	if err := h.check([]*tokens.EnrollRequest{req}); err != nil {
		return "", err
	}
	words := []string{"FIDO2 key"}
	if !auto(h.Device) {
		words[0] += " " + printable(h.Device, maxName)
	}
	wanted := parameters{pin: needOf(unless(h.WithPIN, true)), up: needOf(unless(h.WithUP, true)), uv: needOf(unless(h.WithUV, false))}
	words = append(words, wanted.requires()...)
	if !unless(h.ParametersInHeader, true) {
		words = append(words, "parameters in crypttab")
	}
	return strings.Join(words, ", "), nil
}

func (h *Handler) check(reqs []*tokens.EnrollRequest) error {
	switch {
	case !unless(h.ParametersInHeader, true) && h.SaltFile == "":
		return fmt.Errorf("%w: --fido2-parameters-in-header=no needs --fido2-salt-file=, or the salt would be lost", tokens.ErrUsage)
	case h.SaltFile != "" && len(reqs) > 1:
		return fmt.Errorf("%w: --fido2-salt-file= is for one volume; several would get the same passphrase", tokens.ErrUsage)
	case len(reqs) == 0:
		return fmt.Errorf("%w: no volume to enrol on", tokens.ErrUsage)
	}
	return nil
}

// Enroll implements [tokens.Enroller]. It takes three touches of a key that wants
// them: for the credential, for the secret, and for the proof that the secret
// comes back with what the token says.
func (h *Handler) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	list, err := h.EnrollAll(ctx, []*tokens.EnrollRequest{req}, ui)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// EnrollAll implements [tokens.MultiEnroller]: one credential for all volumes, one
// PIN, and a salt for each volume, two of them in one assertion. So n volumes take
// 1 + 2⌈n/2⌉ touches.
func (h *Handler) EnrollAll(ctx context.Context, reqs []*tokens.EnrollRequest, ui tokens.UI) ([]*tokens.Enrollment, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := h.check(reqs); err != nil {
		return nil, err
	}
	e := &enroller{h: h, reqs: reqs, ui: ui}
	defer e.wipe()
	for _, req := range reqs {
		s, err := h.salt(ctx, req.Volume.UUID)
		if err != nil {
			return nil, err
		}
		e.salts = append(e.salts, s)
	}
	var err error
	if e.k, err = h.chooseKey(ctx, reqs, ui); err != nil {
		return nil, err
	}
	defer e.k.close()
	for _, step := range []func(context.Context) error{e.want, e.refuseDuplicates, e.create, e.derive, e.prove} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return e.results()
}

// enroller is one call of EnrollAll.
type enroller struct {
	h    *Handler
	k    *key
	reqs []*tokens.EnrollRequest
	ui   tokens.UI

	salts   []secret.Secret
	secrets []secret.Secret
	// p is what the tokens share: the salt differs. Its needs are at first what
	// is wanted, then how the key behaved.
	p     parameters
	notes []string
}

func (e *enroller) wipe() {
	secret.WipeAll(e.salts)
	secret.WipeAll(e.secrets)
}

func (e *enroller) note(format string, args ...any) {
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

// want decides what the token shall need, by the options and what the key can do.
//
// Unlike systemd, what was asked for by name is never left out silently.
func (e *enroller) want(context.Context) error {
	e.p = parameters{rp: DefaultRP}
	k := e.k
	for _, f := range []struct {
		option    *bool
		otherwise bool
		able      bool
		dst       *need
		name      string
		lacks     string
		hint      string
	}{
		{e.h.WithPIN, true, k.hasPIN(), &e.p.pin, "a PIN", "has no PIN set", "fido2-token -S " + k.device.Path},
		{e.h.WithUP, true, k.hasUP(), &e.p.up, "a touch", "cannot tell a touch", ""},
		{e.h.WithUV, false, k.hasUV(), &e.p.uv, "user verification", "is not set up to verify the user by itself", ""},
	} {
		wanted := unless(f.option, f.otherwise)
		if wanted && !f.able {
			if f.option != nil {
				err := fmt.Errorf("%w: %s was asked for and %s %s", tokens.ErrUsage, f.name, k.name, f.lacks)
				if f.hint != "" {
					err = tokens.WithHint(err, "set one: "+f.hint)
				}
				return err
			}
			e.note("%s %s, so unlocking will not need %s.", k.name, f.lacks, f.name)
		}
		*f.dst = needOf(wanted && f.able)
	}
	if k.alwaysUV() && e.p.pin == no && e.p.uv == no {
		e.alwaysVerify()
	}
	return nil
}

// alwaysVerify makes the token say what the key does anyway, as systemd 262 does.
func (e *enroller) alwaysVerify() {
	if e.k.hasUV() {
		e.p.uv = yes
	} else {
		e.p.pin = yes
	}
	e.note("%s always verifies the user (alwaysUv).", e.k.name)
}

// refuseDuplicates looks for the key's credentials in the tokens of the volumes.
func (e *enroller) refuseDuplicates(ctx context.Context) error {
	if e.h.AllowDuplicate {
		return nil
	}
	found, err := e.k.enrolled(ctx, e.reqs, func(*parameters) bool { return true })
	if err == nil && found == nil && e.p.pin == yes {
		found, err = e.hiddenDuplicate(ctx)
	}
	if err != nil || found == nil {
		return err
	}
	return fmt.Errorf("%w: %s is token %d on %s; --allow-duplicate enrols it once more",
		tokens.ErrDuplicate, e.k.called(tokens.Label(found.token.Raw)), found.token.ID, found.request.Volume.Device)
}

// hiddenDuplicate looks for credentials that only show themselves to a verified
// user. The PIN is needed anyway; without one they are not found.
func (e *enroller) hiddenDuplicate(ctx context.Context) (*enrolment, error) {
	for _, req := range e.reqs {
		for _, t := range req.Volume.Tokens {
			if t.Type != Type {
				continue
			}
			p, err := parse(t)
			if err != nil || p.uv != yes {
				continue
			}
			a := &wire.Assertion{Path: e.k.device.Path, RP: p.rp, Credential: p.credential}
			if e.k.hasUP() {
				a.UP = wire.False
			}
			c := ceremony{k: e.k, pin: true, enrolling: true, do: func(ctx context.Context, _ *ceremony, pin secret.Secret) error {
				_, err := e.k.client.Assert(ctx, a, pin, secret.Secret{})
				return err
			}}
			switch err := c.run(ctx); {
			case err == nil:
				return &enrolment{req, t}, nil
			case wire.CodeOf(err) != wire.NoCredentials:
				return nil, err
			}
		}
	}
	return nil, nil
}

// create makes the credential, exactly as systemd does: systemd 262
// src/shared/libfido2-util.c, fido2_generate_hmac_hash.
func (e *enroller) create(ctx context.Context) error {
	first := e.reqs[0].Volume
	user := printable(first.UUID, wire.MaxUser)
	if user == "" {
		user = "luks" // keys refuse an empty one
	}
	n := &wire.NewCredential{
		Path: e.k.device.Path, RP: DefaultRP, RPName: rpName,
		UserID: []byte(user), UserName: user, DisplayName: printable(first.Device, wire.MaxUser),
		Algorithm: e.h.Algorithm, ProtectUV: e.p.uv == yes,
	}
	if n.Algorithm == 0 {
		n.Algorithm = wire.ES256
	}
	if _, told := e.k.info.Options["rk"]; told {
		n.RK = wire.False
	}
	c := ceremony{k: e.k, label: e.reqs[0].Label, purpose: "to create a credential", enrolling: true, pin: e.p.pin == yes, up: true,
		do: func(ctx context.Context, c *ceremony, pin secret.Secret) error {
			if e.k.hasUV() {
				n.UV = wire.Of(c.uv)
			}
			made, err := e.k.client.MakeCredential(ctx, n, pin)
			if err == nil {
				e.p.credential = made.ID
			}
			return err
		}}
	err := c.run(ctx)
	if wire.CodeOf(err) == wire.UnsupportedAlgorithm {
		return fmt.Errorf("%w: %s does not know the algorithm; try another --fido2-credential-algorithm=", tokens.ErrUsage, e.k.name)
	}
	if err != nil {
		return fmt.Errorf("creating a credential: %w", err)
	}
	return nil
}

// derive gets the secret of every volume and notes how the key behaved.
func (e *enroller) derive(ctx context.Context) error {
	wanted := e.p
	var behaved *derived
	secrets, err := e.deriveAll(ctx, e.salts, "to derive the key", func(d *derived) { behaved = d })
	if err != nil {
		return fmt.Errorf("deriving the key: %w", err)
	}
	e.secrets = secrets
	e.p.pin, e.p.up, e.p.uv = behaved.pin, behaved.up, behaved.uv
	if wanted.uv == yes && e.p.uv == no {
		return fmt.Errorf("%w: %s says that it did not verify the user, although it was asked to", tokens.ErrUsage, e.k.name)
	}
	for _, f := range []struct {
		wanted, got need
		name        string
	}{{wanted.pin, e.p.pin, "the PIN"}, {wanted.up, e.p.up, "a touch"}, {wanted.uv, e.p.uv, "user verification"}} {
		if f.wanted == no && f.got == yes {
			e.note("%s insists on %s; so will unlocking.", e.k.name, f.name)
		}
	}
	return nil
}

// deriveAll takes the salts two at a time. The caller wipes the result.
func (e *enroller) deriveAll(ctx context.Context, salts []secret.Secret, purpose string, report func(*derived)) (_ []secret.Secret, err error) {
	var list []secret.Secret
	defer func() {
		if err != nil {
			secret.WipeAll(list)
		}
	}()
	for len(salts) > 0 {
		n := min(2, len(salts))
		pair := secret.Join(salts[:n]...)
		salts = salts[n:]
		d, err := e.k.derive(ctx, &e.p, pair, ceremony{purpose: purpose, enrolling: true})
		pair.Wipe()
		if err != nil {
			return list, err
		}
		for i := range n {
			list = append(list, secret.Copy(d.secret.Bytes()[i*32:][:32]))
		}
		d.secret.Wipe()
		report(d)
	}
	return list, nil
}

// prove derives again from the bytes of the tokens, as unlocking will, and wants
// the same secrets. The salts come in reverse order, so that they also stand in
// another place of the assertion.
func (e *enroller) prove(ctx context.Context) error {
	n := len(e.salts)
	salts, want := make([]secret.Secret, n), make([]secret.Secret, n)
	for i := range n {
		p, err := e.reread(i)
		if err != nil {
			return fmt.Errorf("reading the new token back: %w", err)
		}
		salts[n-1-i], want[n-1-i] = secret.Copy(p.salt), e.secrets[i]
		e.p.credential, e.p.rp, e.p.pin, e.p.up, e.p.uv = p.credential, p.rp, p.pin, p.up, p.uv
	}
	defer secret.WipeAll(salts)
	expected := e.p
	got, err := e.deriveAll(ctx, salts, "once more, to prove that the key comes back", func(d *derived) {
		e.p.pin, e.p.up, e.p.uv = d.pin, d.up, d.uv
	})
	if err != nil {
		return fmt.Errorf("proving the new token: %w", err)
	}
	defer secret.WipeAll(got)
	if expected.pin != e.p.pin || expected.up != e.p.up || expected.uv != e.p.uv {
		return fmt.Errorf("proving the new token: %s wants other things than a moment ago", e.k.name)
	}
	for i := range got {
		if !got[i].Equal(want[i]) {
			return fmt.Errorf("proving the new token: %s gives another key than a moment ago", e.k.name)
		}
	}
	return nil
}

// token returns the JSON for one volume.
func (e *enroller) token(i int) ([]byte, error) {
	p := e.p
	p.salt = e.salts[i].Bytes()
	p.extra = extra{Extra: tokens.NewExtra(e.label(i), e.k.name), AAGUID: formatAAGUID(e.k.info.AAGUID)}
	return p.build()
}

func (e *enroller) reread(i int) (*parameters, error) {
	raw, err := e.token(i)
	if err != nil {
		return nil, err
	}
	return parse(luks2.Token{Type: Type, Raw: raw})
}

// label is the user's name for the key, or the product's.
func (e *enroller) label(i int) string {
	if l := e.reqs[i].Label; l != "" {
		return l
	}
	return e.k.name
}

func (e *enroller) results() ([]*tokens.Enrollment, error) {
	var list []*tokens.Enrollment
	for i, req := range e.reqs {
		r, err := e.result(i, req)
		if err != nil {
			for _, r := range list {
				r.Passphrase.Wipe()
			}
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

func (e *enroller) result(i int, req *tokens.EnrollRequest) (*tokens.Enrollment, error) {
	r := &tokens.Enrollment{KDF: luks2.MinimalKDF, Unchanged: -1, Label: e.label(i), Requires: e.p.requires(),
		Crypttab: []string{"fido2-device=auto"}, Notes: e.notesFor(req)}
	if unless(e.h.ParametersInHeader, true) {
		raw, err := e.token(i)
		if err != nil {
			return nil, fmt.Errorf("making the token: %w", err)
		}
		r.Token = raw
	} else {
		r.Crypttab = append(r.Crypttab, e.p.crypttab()...)
		r.Notes = append(r.Notes, fmt.Sprintf("No token was written: the volume opens only with these crypttab options and the key file %s.", e.h.SaltFile))
	}
	r.Passphrase = secret.Base64(e.secrets[i])
	return r, nil
}

// notesFor adds what an old systemd makes of the result.
func (e *enroller) notesFor(req *tokens.EnrollRequest) []string {
	notes := append([]string{}, e.notes...)
	inHeader := unless(e.h.ParametersInHeader, true)
	if inHeader && req.Compat < 249 && e.p.pin == yes {
		notes = append(notes, "systemd 248 asks for the PIN only if the key demands it, and may then get another secret.")
	}
	if inHeader && req.Compat < 251 && hasToken(req.Volume.Tokens) {
		notes = append(notes, "systemd before 251 unlocks with no FIDO2 key once a volume has several.")
	}
	if !inHeader && req.Compat < 257 && e.p.pin == yes {
		notes = append(notes, "systemd before 257 does not know the option fido2-pin= and may get another secret.")
	}
	return notes
}

func hasToken(list []luks2.Token) bool {
	for _, t := range list {
		if t.Type == Type {
			return true
		}
	}
	return false
}
