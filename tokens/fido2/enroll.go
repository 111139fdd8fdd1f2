package fido2

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Plan implements [tokens.Enroller].
func (h *Handler) Plan(req *tokens.EnrollRequest) (string, error) {
	if err := h.check([]*tokens.EnrollRequest{req}); err != nil {
		return "", err
	}
	name := ""
	if !auto(h.Device) {
		name = printable(h.Device, maxName)
	}
	wanted := parameters{pin: needOf(unless(h.WithPIN, true)), up: needOf(unless(h.WithUP, true)), uv: needOf(unless(h.WithUV, false))}
	return h.words(name, &wanted), nil
}

// words are the line about an enrolment that will need, or needs, what p says.
func (h *Handler) words(name string, p *parameters) string {
	words := []string{namelessKey}
	if strings.HasPrefix(name, namelessKey) {
		words[0] = name
	} else if name != "" {
		words[0] += " " + name
	}
	words = append(words, p.requires()...)
	if !unless(h.ParametersInHeader, true) {
		words = append(words, "parameters in crypttab")
	}
	return strings.Join(words, ", ")
}

func (h *Handler) check(reqs []*tokens.EnrollRequest) error {
	switch {
	case !unless(h.ParametersInHeader, true) && h.SaltFile == "":
		return tokens.Usagef("--fido2-parameters-in-header=no needs --fido2-salt-file=, or the salt would be lost")
	case h.SaltFile != "" && len(reqs) > 1:
		return tokens.Usagef("--fido2-salt-file= is for one volume; several would get the same passphrase")
	case len(reqs) == 0:
		return tokens.Usagef("no volume to enrol on")
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
	if h.SaltFile != "" {
		var err error
		if e.saltPath, err = filepath.Abs(h.SaltFile); err != nil {
			return nil, fmt.Errorf("salt file: %w", err)
		}
	}
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

	saltPath string // of Handler.SaltFile, for crypttab
	salts    []secret.Secret
	secrets  []secret.Secret
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
				err := tokens.Usagef("%s was asked for and %s %s", f.name, k.name, f.lacks)
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

// made is the line of Plan about what was made, if the key changed it.
func (e *enroller) made() string {
	name := ""
	if !auto(e.h.Device) {
		name = e.k.name
	}
	return e.h.words(name, &e.p)
}

func (e *enroller) result(i int, req *tokens.EnrollRequest) (*tokens.Enrollment, error) {
	r := &tokens.Enrollment{KDF: luks2.MinimalKDF, Label: e.label(i), Requires: e.p.requires(), Made: e.made(),
		Crypttab: []string{"fido2-device=auto"}, Notes: e.notesFor(req)}
	if unless(e.h.ParametersInHeader, true) {
		raw, err := e.token(i)
		if err != nil {
			return nil, fmt.Errorf("making the token: %w", err)
		}
		r.Token, r.Proven = raw, true // see prove
	} else {
		r.Doubt = notInHeader
		r.Crypttab, r.KeyFile = append(r.Crypttab, e.p.crypttab()...), e.saltPath
		r.Notes = append(r.Notes, fmt.Sprintf("No token was written: the volume opens only with these crypttab options and the key file %s.", e.saltPath))
	}
	r.Passphrase = secret.Base64(e.secrets[i])
	return r, nil
}

// notInHeader is why a key without token counts for nothing: who has only the volume
// and the security device cannot open it.
const notInHeader = "nothing in the header leads to its key: that takes the options and the key file that crypttab is to name"

// Doubt implements tokens.Doubter.
func (h *Handler) Doubt(*tokens.EnrollRequest) (why string, certain bool) {
	if unless(h.ParametersInHeader, true) {
		return "", false
	}
	return notInHeader, true
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
