package pkcs11

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// UpgradeRequest names the tokens of a volume that may be changed.
type UpgradeRequest struct {
	Volume tokens.Volume
	// Tokens are the candidates, all of type systemd-pkcs11.
	Tokens []luks2.Token
	// Compat is the oldest systemd that must read the result, as in
	// tokens.EnrollRequest. OAEP needs 261.
	Compat int
	// Opens tries a passphrase on the keyslots of a token, as in
	// tokens.UnlockRequest. It must not be nil: an upgrade is for tokens that work.
	Opens func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error
}

// Upgraded is a token in its new form.
type Upgraded struct {
	ID int // number in the header
	// Token is the complete JSON object to write in place of the old one. Its
	// keyslots are the same and so is their passphrase: there is nothing to wipe,
	// and whatever happens, one of the two forms is on the disk.
	Token json.RawMessage
	// Changes says what was put right: Detail.Upgrade has the words.
	Changes []string
	// Note is what could not be changed and why; empty if all was.
	Note string
}

// Upgrade makes better forms of tokens: OAEP in place of PKCS#1 v1.5, and a URI
// that systemd can unlock with in place of one with type=cert. First each
// secret is recovered and opens the volume, then it is encrypted anew and recovered
// from the new text in a new session. The tokens that need nothing are not in the
// result. The caller writes what is there, also if there is an error besides: that
// is about the other tokens (*tokens.TokenError).
func (h *Handler) Upgrade(ctx context.Context, req *UpgradeRequest, ui tokens.UI) ([]Upgraded, error) {
	upgrades, failures, err := h.plan(req)
	if err != nil || len(upgrades) == 0 {
		return nil, errors.Join(append(failures, err)...)
	}
	r := &run{h: h, ui: ui, pins: &pins{}, memory: &memory{}}
	admin, _ := h.adminURI()
	r.useAdmin(admin)
	defer r.pins.wipe()
	defer func() {
		for _, u := range upgrades {
			u.secret.Wipe()
		}
	}()
	if err := r.recoverOld(ctx, upgrades, req); err != nil {
		return nil, joined(failures, err)
	}
	failures = append(failures, failuresOf(unfinished(r.jobs))...)
	upgrades = slices.DeleteFunc(upgrades, func(u *upgrade) bool { return u.secret.Len() == 0 })
	if err := r.proveNew(ctx, upgrades); err != nil {
		return nil, joined(failures, err)
	}
	var list []Upgraded
	for i, u := range upgrades {
		if u.proven != nil {
			list = append(list, u.result())
			continue
		}
		err := fmt.Errorf("proving the new form: %w", r.whyNot(i))
		failures = append(failures, tokens.FailureOf(u.job.token, typeName, err))
	}
	return list, errors.Join(failures...)
}

// upgrade is one token on its way.
type upgrade struct {
	job    *job
	flaws  []string // of those that the request allows to change
	secret secret.Secret
	device string // identity of the one that has the key
	public *rsa.PublicKey
	forms  []form
	proven *form
}

// plan finds the tokens to upgrade. It needs no device.
func (h *Handler) plan(req *UpgradeRequest) (upgrades []*upgrade, failures []error, err error) {
	jobs, failures, err := h.jobs(&tokens.UnlockRequest{Volume: req.Volume, Tokens: req.Tokens})
	if err != nil {
		return nil, nil, err
	}
	kept := 0
	for _, j := range jobs {
		all := j.record.flaws()
		flaws := Upgradable(all, req.Compat)
		kept += len(all) - len(flaws)
		if len(flaws) > 0 {
			j.group = len(upgrades)
			upgrades = append(upgrades, &upgrade{job: j, flaws: flaws})
		}
	}
	if kept > 0 && len(upgrades) == 0 {
		return nil, failures, tokens.WithHint(tokens.Usagef("systemd before %d reads PKCS#1 v1.5 only", sinceOAEP),
			fmt.Sprintf("if no older systemd has to unlock the volume: --compat=%d", sinceOAEP))
	}
	return upgrades, failures, nil
}

// Upgradable are those flaws of Detail.Upgrade that can go if systemd of that version
// has to read the result.
func Upgradable(flaws []string, compat int) []string {
	return slices.DeleteFunc(slices.Clone(flaws), func(f string) bool { return f == flawPadding && compat < sinceOAEP })
}

// recoverOld gets the secrets, and the public keys that go with them.
func (r *run) recoverOld(ctx context.Context, upgrades []*upgrade, req *UpgradeRequest) error {
	for _, u := range upgrades {
		r.jobs = append(r.jobs, u.job)
	}
	r.accept = func(ctx context.Context, j *job, got *recovered) error {
		u := upgrades[j.group]
		if err := req.Opens(ctx, j.token, got.passphrase); err != nil {
			return err
		}
		var err error
		if u.public, err = publicHalf(got.key); err != nil {
			return err
		}
		u.secret, u.device = got.secret.Clone(), identity(got.device)
		return nil
	}
	return r.all(ctx)
}

// publicHalf is nil for EC, which needs none. A module that keeps the exponent to
// itself most likely has the usual one; the proof shows.
func publicHalf(key *wire.PrivateKey) (*rsa.PublicKey, error) {
	if key.Type != wire.RSA {
		return nil, nil
	}
	k := publicKey{}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(key.Modulus), E: 65537}
	if len(key.Exponent) > 0 {
		pub.E = exponent(key.Exponent)
	}
	if err := k.setRSA(pub); err != nil {
		return nil, fmt.Errorf("the token's key cannot encrypt: %w", err)
	}
	return k.rsa, nil
}

// unfinished are the jobs that failed.
func unfinished(jobs []*job) []*job {
	return slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.done })
}

// proveNew makes the new forms and recovers the secrets from their texts.
func (r *run) proveNew(ctx context.Context, upgrades []*upgrade) error {
	r.jobs = nil
	for i, u := range upgrades {
		if err := u.makeForms(); err != nil {
			return err
		}
		for k := range u.forms {
			read, err := parse(u.forms[k].json)
			if err != nil {
				return fmt.Errorf("reading back token %d: %w", u.job.token.ID, err)
			}
			selects := read.uri.forStorage()
			r.jobs = append(r.jobs, &job{token: luks2.Token{ID: k, Type: Type}, record: read, selects: selects, group: i})
		}
	}
	r.only = func(t *wire.Token) bool {
		return slices.ContainsFunc(upgrades, func(u *upgrade) bool { return u.device == identity(t) })
	}
	r.accept = func(_ context.Context, j *job, got *recovered) error {
		u := upgrades[j.group]
		if !got.secret.Equal(u.secret) {
			return tokens.ErrWrongKey
		}
		u.proven = &u.forms[j.token.ID]
		return nil
	}
	return r.all(ctx)
}

// makeForms edits the token: with OAEP if that is wanted, and last with the key as
// it is, if something else was wrong, too.
func (u *upgrade) makeForms() error {
	var members []member
	if slices.Contains(u.flaws, flawURI) {
		members = append(members, member{memberURI, u.job.record.uri.forStorage().String()})
	}
	if slices.Contains(u.flaws, flawPadding) {
		for _, padding := range []wire.Padding{wire.OAEPSHA256, wire.OAEPSHA1} {
			ciphertext, err := encrypt(u.public, padding, u.secret)
			if err != nil {
				continue // a secret of somebody else's making that is too long for this hash
			}
			if err := u.addForm(padding, append(members, member{memberKey, ciphertext}, member{memberPadding, padding})); err != nil {
				return err
			}
		}
	}
	if len(members) > 0 {
		return u.addForm(u.job.record.padding, members)
	}
	return nil
}

func (u *upgrade) addForm(padding wire.Padding, members []member) error {
	text, err := setMembers(u.job.token.Raw, members)
	if err != nil {
		return fmt.Errorf("editing token %d: %w", u.job.token.ID, err)
	}
	u.forms = append(u.forms, form{padding, text})
	return nil
}

// member is one to set in a token. Others, known or not, stay as they are.
type member struct {
	name  string
	value any
}

func setMembers(token json.RawMessage, members []member) (json.RawMessage, error) {
	for _, m := range members {
		value, err := encodeJSON(m.value)
		if err == nil {
			token, err = luks2.SetMember(token, value, m.name)
		}
		if err != nil {
			return nil, err
		}
	}
	return token, nil
}

func (u *upgrade) result() Upgraded {
	result := Upgraded{ID: u.job.token.ID, Token: u.proven.json, Changes: u.flaws}
	if u.proven.padding == wire.PKCS1 && slices.Contains(u.flaws, flawPadding) {
		result.Changes = []string{flawURI}
		result.Note = "The padding stays PKCS#1 v1.5, because the token decrypts no OAEP."
	}
	return result
}
