package combo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// made is a factor that was enrolled, with its secret.
type made struct {
	factor
	tokenType string
	secret    secret.Secret
	result    *tokens.Enrollment // nil for a passphrase
}

// need is how many factors open the volume.
func (h *Handler) need() int {
	if h.AllOf != nil {
		return len(h.AllOf)
	}
	return h.Need
}

// check refuses options that make no combination.
func (h *Handler) check() error {
	switch {
	case len(h.factors()) == 0:
		return tokens.Usagef("--any= needs --of=")
	case h.AllOf == nil && h.Need == 0:
		return tokens.Usagef("--of= needs --any=")
	case h.AllOf != nil && h.Need != 0:
		return tokens.Usagef("--any= goes with --of=, not with --all-of=")
	case h.need() > len(h.factors()):
		return tokens.Usagef("%d of %d factors", h.need(), len(h.factors()))
	}
	if err := h.checkFactors(h.factors()); err != nil {
		return tokens.Usagef("%w", err)
	}
	return nil
}

// Plan names the factors as their own handlers do.
func (h *Handler) Plan(req *tokens.EnrollRequest) (string, error) {
	if err := h.check(); err != nil {
		return "", err
	}
	var parts []string
	for _, name := range h.factors() {
		what, err := h.planFactor(name, req)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		parts = append(parts, what)
	}
	if n := h.need(); n < len(h.factors()) {
		return fmt.Sprintf("any %d of: %s", n, strings.Join(parts, "; ")), nil
	}
	return "all of: " + strings.Join(parts, "; "), nil
}

func (h *Handler) planFactor(name string, req *tokens.EnrollRequest) (string, error) {
	if name == passphraseFactor {
		return "passphrase", nil
	}
	e, ok := h.unlocker(name).(tokens.Enroller)
	if !ok {
		return "", errors.New("cannot be enrolled")
	}
	return e.Plan(factorRequest(req, nil))
}

// factorRequest is the enrolment of one factor. What is enrolled on the volume
// already is none of its business, since the factor gets a secret of its own; but
// no device may count for two factors. No systemd reads the result, so that it has the
// newest form, which is the safest.
func factorRequest(req *tokens.EnrollRequest, earlier []made) *tokens.EnrollRequest {
	r := *req
	r.Volume.Tokens, r.Opens, r.Label = nil, nil, "" // its own name says what to plug in
	r.Compat, r.Factor = tokens.NewestSystemd, true
	for i, m := range earlier {
		if m.result != nil {
			r.Volume.Tokens = append(r.Volume.Tokens, luks2.Token{ID: i, Type: m.tokenType, Raw: m.raw})
		}
	}
	return &r
}

// Enroll enrols every factor and makes a keyslot for each subset that shall open
// the volume; the first is the result, the others stand in its More.
func (h *Handler) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	factors, err := h.enrollFactors(ctx, req, ui)
	defer wipeAll(factors)
	if err != nil {
		return nil, err
	}
	var list []*tokens.Enrollment
	for _, subset := range subsets(len(factors), h.need()) {
		e, err := h.enrollSubset(req, pick(factors, subset))
		if err != nil {
			for _, e := range list {
				e.Passphrase.Wipe()
			}
			return nil, err
		}
		list = append(list, e)
	}
	first := list[0]
	first.Notes, first.More = notes(factors), list[1:]
	return first, nil
}

// enrollFactors asks for the devices one after the other, for the passphrase last.
// What was made so far comes back with an error too, to be wiped.
func (h *Handler) enrollFactors(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) ([]made, error) {
	list := make([]made, len(h.factors()))
	for _, last := range []bool{false, true} {
		for i, name := range h.factors() {
			if (name == passphraseFactor) != last {
				continue
			}
			one, err := h.enrollFactor(ctx, name, factorRequest(req, list[:i]), ui)
			if err != nil {
				return list, fmt.Errorf("factor %s: %w", name, err)
			}
			list[i] = *one
		}
	}
	return list, nil
}

func (h *Handler) enrollFactor(ctx context.Context, name string, req *tokens.EnrollRequest, ui tokens.UI) (*made, error) {
	identity := secret.Random(identitySize)
	defer identity.Wipe()
	m := &made{factor: factor{name: name, identity: slices.Clone(identity.Bytes())}}
	if name == passphraseFactor {
		return m, m.typeNew(ctx, ui)
	}
	e, ok := h.unlocker(name).(tokens.Enroller)
	if !ok {
		return nil, errors.New("cannot be enrolled")
	}
	result, err := e.Enroll(ctx, req, ui)
	if err != nil {
		return nil, err
	}
	m.result, m.tokenType, m.secret, m.raw = result, e.Type(), result.Passphrase, result.Token
	switch {
	case result.Unchanged != nil:
		return nil, fmt.Errorf("%w: one device cannot be two factors", tokens.ErrDuplicate)
	case len(result.Token) == 0:
		m.secret.Wipe()
		return nil, tokens.Usagef("its parameters have to be in the header")
	}
	return m, nil
}

// enrollSubset makes the keyslot that the given factors open together.
func (h *Handler) enrollSubset(req *tokens.EnrollRequest, factors []made) (*tokens.Enrollment, error) {
	salt := secret.Random(saltSize)
	defer salt.Wipe()
	t := &token{salt: slices.Clone(salt.Bytes()), need: len(factors), of: len(h.factors())}
	secrets := make([]secret.Secret, len(factors))
	for i, f := range factors {
		t.factors, secrets[i] = append(t.factors, f.factor), f.secret
	}
	label := req.Label
	if label == "" {
		label = strings.Join(names(factors), "+")
	}
	raw, err := t.marshal(tokens.NewExtra(label, ""))
	if err != nil {
		return nil, fmt.Errorf("making the token: %w", err)
	}
	key, err := t.passphrase(secrets)
	if err != nil {
		return nil, err
	}
	return &tokens.Enrollment{Passphrase: key, KDF: luks2.MinimalKDF, Token: raw, Proven: proven(factors), Doubt: doubt(factors), Label: label,
		Requires: requires(factors), Crypttab: crypttab(factors)}, nil
}

// crypttab are the options that unlock it: its own, and those of factors that are not
// found without them.
func crypttab(factors []made) []string {
	list := []string{"luksmith-combo=auto"}
	for _, f := range factors {
		if f.result == nil {
			continue
		}
		for _, option := range f.result.Crypttab {
			if !strings.HasSuffix(option, "=auto") && !slices.Contains(list, option) {
				list = append(list, option)
			}
		}
	}
	return list
}

// Doubt implements tokens.Doubter: one factor in doubt is enough.
func (h *Handler) Doubt(req *tokens.EnrollRequest) (why string, certain bool) {
	for _, name := range h.factors() {
		if d, ok := h.unlocker(name).(tokens.Doubter); ok && name != passphraseFactor {
			if why, certain = d.Doubt(factorRequest(req, nil)); why != "" {
				return name + ": " + why, certain
			}
		}
	}
	return "", false
}

// proven reports whether every device gave its secret back.
func proven(factors []made) bool {
	return !slices.ContainsFunc(factors, func(f made) bool { return f.result != nil && !f.result.Proven })
}

// doubt is why not, by the first factor that has a doubt.
func doubt(factors []made) string {
	for _, f := range factors {
		if f.result != nil && f.result.Doubt != "" {
			return f.name + ": " + f.result.Doubt
		}
	}
	return ""
}

func requires(factors []made) []string {
	var list []string
	for _, f := range factors {
		if f.result == nil || len(f.result.Requires) == 0 {
			list = append(list, f.name)
			continue
		}
		list = append(list, f.result.Requires...)
	}
	return list
}

func notes(factors []made) []string {
	var list []string
	for _, f := range factors {
		if f.result != nil {
			list = append(list, f.result.Notes...)
		}
	}
	return list
}

func names(factors []made) []string {
	list := make([]string, len(factors))
	for i, f := range factors {
		list[i] = f.name
	}
	return list
}

func pick(all []made, indexes []int) []made {
	list := make([]made, len(indexes))
	for i, at := range indexes {
		list[i] = all[at]
	}
	return list
}

func wipeAll(list []made) {
	for _, m := range list {
		m.secret.Wipe()
	}
}
