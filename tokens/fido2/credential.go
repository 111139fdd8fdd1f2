package fido2

import (
	"context"
	"fmt"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// rpName is the name of the relying party that systemd gives new credentials.
const rpName = "Encrypted Volume"

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
		Algorithm: e.h.Algorithm, ProtectUV: unless(e.h.WithUV, false),
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
		return tokens.Usagef("%s does not know the algorithm; try another --fido2-credential-algorithm=", e.k.name)
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
		return fmt.Errorf("%s says that it did not verify the user, although it was asked to", e.k.name)
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
	defer secret.WipeAll(salts)
	for i := range n {
		p, err := e.reread(i)
		if err != nil {
			return fmt.Errorf("reading the new token back: %w", err)
		}
		salts[n-1-i], want[n-1-i] = secret.Copy(p.salt), e.secrets[i]
		e.p.credential, e.p.rp, e.p.pin, e.p.up, e.p.uv = p.credential, p.rp, p.pin, p.up, p.uv
	}
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
