package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// The first systemd that reads a form.
const (
	sinceEC   = 256
	sinceOAEP = 261
)

// Plan implements tokens.Enroller.
func (h *Handler) Plan(req *tokens.EnrollRequest) (string, error) {
	which := "the only suitable key that is plugged in"
	if h.TokenURI != "" && h.TokenURI != auto {
		u, err := parseURI(h.TokenURI)
		if err != nil {
			return "", tokens.Usagef("the URI to enrol %w", err)
		}
		which = u.String()
	}
	forms := "RSA (PKCS#1 v1.5)"
	if req.Compat >= sinceOAEP {
		forms = "RSA (OAEP)"
	}
	if req.Compat >= sinceEC {
		forms += " or EC"
	}
	text := "PKCS#11, " + which + ", " + forms + ", PIN"
	if h.NoVerify {
		text += ", not verified"
	}
	return text, nil
}

// Enroll implements tokens.Enroller.
func (h *Handler) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	list, err := h.EnrollAll(ctx, []*tokens.EnrollRequest{req}, ui)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// EnrollAll implements tokens.MultiEnroller: one key for all volumes, with a
// secret for each, and one question for the PIN.
func (h *Handler) EnrollAll(ctx context.Context, reqs []*tokens.EnrollRequest, ui tokens.UI) ([]*tokens.Enrollment, error) {
	r := &run{h: h, ui: ui, pins: &pins{}, memory: &memory{}}
	defer r.pins.wipe()
	chosen, err := r.choose(ctx)
	if err != nil {
		return nil, err
	}
	drafts := make([]*draft, len(reqs))
	defer func() {
		for _, d := range drafts {
			d.wipe()
		}
	}()
	for i, req := range reqs {
		if drafts[i], err = newDraft(req, chosen); err != nil {
			return nil, err
		}
	}
	if h.NoVerify {
		assume(drafts, chosen)
	} else if err := r.prove(ctx, drafts, chosen); err != nil {
		return nil, err
	}
	list := make([]*tokens.Enrollment, len(reqs))
	for i, d := range drafts {
		list[i] = d.enrollment(chosen, h.NoVerify)
	}
	return list, nil
}

// draft is an enrolment before it is known in which form the token can do it.
type draft struct {
	req        *tokens.EnrollRequest
	extra      tokens.Extra
	passphrase secret.Secret
	forms      []form // in the order of preference, all for the one passphrase
	proven     *form
	candidates int // see recovered
}

// form is one way to store a secret.
type form struct {
	padding wire.Padding
	json    []byte
}

func (d *draft) wipe() {
	if d != nil {
		d.passphrase.Wipe()
	}
}

// newDraft makes the secret for a volume and all forms that the request allows.
func newDraft(req *tokens.EnrollRequest, c *choice) (*draft, error) {
	if c.key.ec != nil && req.Compat < sinceEC {
		return nil, tokens.WithHint(tokens.Usagef("the token's key is %s, and systemd before %d reads RSA only", c.key, sinceEC),
			fmt.Sprintf("choose an RSA key, or --compat=%d if no older systemd has to unlock the volume", sinceEC))
	}
	label := req.Label
	if label == "" {
		label = defaultLabel(&c.device)
	}
	raw, point, err := newSecret(c.key)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	d := &draft{req: req, extra: tokens.NewExtra(label, productName(&c.device)), passphrase: secret.Base64(raw)}
	for _, padding := range paddings(c.key, req.Compat) {
		f, err := newForm(c.key, c.stored, padding, d.extra, wrapped{raw, point})
		if err != nil {
			d.wipe()
			return nil, err
		}
		d.forms = append(d.forms, f)
	}
	return d, nil
}

// defaultLabel is the name that the token has for itself, if it can be one.
func defaultLabel(t *wire.Token) string {
	label := strings.ToValidUTF8(string(t.Label), "?")
	if tokens.CheckLabel(label) != nil {
		return ""
	}
	return label
}

// wrapped is a secret and, for EC, the point that gives it.
type wrapped struct {
	secret secret.Secret
	point  []byte
}

func newForm(key *publicKey, stored uri, padding wire.Padding, extra tokens.Extra, w wrapped) (form, error) {
	r := &record{uri: stored, padding: padding, key: w.point}
	if key.rsa != nil {
		var err error
		if r.key, err = encrypt(key.rsa, padding, w.secret); err != nil {
			return form{}, err
		}
	}
	text, err := r.encode(extra)
	return form{padding, text}, err
}

// paddings are the forms to try for a key, the best first. Of OAEP systemd 261 and
// later read both; many cards can do neither.
func paddings(key *publicKey, compat int) []wire.Padding {
	if key.ec != nil || compat < sinceOAEP {
		return []wire.Padding{wire.PKCS1}
	}
	return []wire.Padding{wire.OAEPSHA256, wire.OAEPSHA1, wire.PKCS1}
}

// assume chooses forms without asking the token: OAEP with SHA-1, the only one that
// was in PKCS#11 from the beginning, if the token says that it can do OAEP.
func assume(drafts []*draft, c *choice) {
	for _, d := range drafts {
		d.proven = &d.forms[len(d.forms)-1]
		for i := range d.forms {
			if d.forms[i].padding == wire.OAEPSHA1 && c.device.OAEP {
				d.proven = &d.forms[i]
			}
		}
	}
}

// prove has the token recover every secret, in a new session, from the text that is
// going to be written, as it will happen at unlock.
func (r *run) prove(ctx context.Context, drafts []*draft, c *choice) error {
	for i, d := range drafts {
		for k := range d.forms {
			read, err := parse(d.forms[k].json)
			if err != nil {
				return fmt.Errorf("reading back the new token: %w", err)
			}
			r.jobs = append(r.jobs, &job{token: luks2.Token{ID: k, Type: Type}, record: read, selects: read.uri.forStorage(), group: i})
		}
	}
	r.only = func(t *wire.Token) bool { return identity(t) == identity(&c.device) }
	r.accept = func(_ context.Context, j *job, got *recovered) error {
		d := drafts[j.group]
		if !got.passphrase.Equal(d.passphrase) {
			return tokens.ErrWrongKey
		}
		d.proven, d.candidates = &d.forms[j.token.ID], got.candidates
		return nil
	}
	if err := r.all(ctx); err != nil {
		return err
	}
	for i, d := range drafts {
		if d.proven == nil {
			return fmt.Errorf("proving that %s unlocks: %w", deviceName(&c.device), r.whyNot(i))
		}
	}
	return nil
}

// whyNot is the last failure in a group.
func (r *run) whyNot(group int) error {
	err := errors.New("no form that the token takes")
	for _, j := range r.jobs {
		if j.group == group && j.err != nil {
			err = j.err
		}
	}
	return err
}

// enrollment is the result, whose passphrase is no longer the draft's.
func (d *draft) enrollment(c *choice, unverified bool) *tokens.Enrollment {
	e := &tokens.Enrollment{
		Passphrase: d.passphrase,
		KDF:        luks2.MinimalKDF,
		Token:      d.proven.json,
		Proven:     !unverified,
		Made:       d.made(c, unverified),
		Label:      string(d.extra.Label),
		Requires:   requires(),
		Crypttab:   []string{"pkcs11-uri=" + auto},
		Notes:      d.notes(c, unverified),
	}
	d.passphrase = secret.Secret{}
	if unverified {
		e.Doubt = notAsked
	}
	return e
}

// notAsked is why a key that was not verified is not proven.
const notAsked = "its device was not asked, because of --pkcs11-no-verify"

// Doubt implements tokens.Doubter.
func (h *Handler) Doubt(*tokens.EnrollRequest) (why string, certain bool) {
	if h.NoVerify {
		return notAsked, true
	}
	return "", false
}

// made is Plan's line, with what is known by now.
func (d *draft) made(c *choice, unverified bool) string {
	words := []string{"PKCS#11", deviceName(&c.device), c.key.String()}
	if c.key.rsa != nil {
		words[2] += map[wire.Padding]string{wire.PKCS1: " (PKCS#1 v1.5)", wire.OAEPSHA1: " (OAEP, SHA-1)", wire.OAEPSHA256: " (OAEP, SHA-256)"}[d.proven.padding]
	}
	words = append(words, requires()...)
	if unverified {
		words = append(words, "not verified")
	}
	return strings.Join(words, ", ")
}

func (d *draft) notes(c *choice, unverified bool) []string {
	var notes []string
	if c.key.rsa != nil && d.proven.padding == wire.PKCS1 {
		if d.req.Compat < sinceOAEP {
			notes = append(notes, fmt.Sprintf("Made for systemd before %d: the key is encrypted with PKCS#1 v1.5. --compat=%[1]d takes OAEP.", sinceOAEP))
		} else {
			notes = append(notes, "The key is encrypted with PKCS#1 v1.5: this token decrypts no OAEP.")
		}
	}
	if d.candidates > 1 {
		notes = append(notes, fmt.Sprintf("%d keys of the token have the same CKA_ID: systemd refuses to choose one, luksmith tries each.", d.candidates))
	}
	for _, t := range d.twins(c) {
		notes = append(notes, fmt.Sprintf("This key unlocks %s too: one of the two can be wiped.", tokens.TokenText(t, typeName)))
	}
	if unverified {
		notes = append(notes, "Nobody has shown that the token can unlock the volume: test it before you rely on it.")
	}
	return notes
}

// twins are the tokens of the volume whose URI selects the same key.
func (d *draft) twins(c *choice) (list []luks2.Token) {
	for _, t := range d.req.Volume.Tokens {
		if t.Type != Type {
			continue
		}
		r, err := parse(t.Raw)
		if err != nil || !r.uri.namesObject() || r.kind() != c.key.String() {
			continue
		}
		if r.uri.matchesToken(&c.device) && r.uri.matchesObject(c.key.id, c.key.label) {
			list = append(list, t)
		}
	}
	return list
}
