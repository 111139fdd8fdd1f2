package pkcs11

import (
	"context"
	"errors"
	"fmt"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// Unlock implements tokens.Unlocker. With KeyData the key file is the ciphertext
// or point, and UnlockURI or, without one, every token that is plugged in selects
// the key.
//
// Unlike systemd, it takes any number of tokens in the header and of security
// devices; each is tried once.
func (h *Handler) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	jobs, failures, err := h.jobs(req)
	if err != nil {
		return nil, err
	}
	if len(jobs) == 0 {
		return nil, errors.Join(failures...)
	}
	var unlocked *tokens.Unlocked
	r := &run{h: h, ui: ui, jobs: jobs, pins: &pins{}, memory: &h.memory}
	admin, _ := h.adminURI()
	r.useAdmin(admin)
	r.accept = func(ctx context.Context, j *job, got *recovered) error {
		err := req.Check(ctx, j.token, got.passphrase)
		if err == nil {
			unlocked = &tokens.Unlocked{Token: j.token, Passphrase: got.passphrase.Clone()}
		}
		return err
	}
	defer r.pins.wipe()
	if err := r.all(ctx); err != nil {
		return nil, joined(failures, err)
	}
	if unlocked != nil {
		return unlocked, nil
	}
	return nil, errors.Join(append(failures, failuresOf(jobs)...)...)
}

// joined adds the failures of single tokens to the error that ended everything;
// that of a context or a person stands alone.
func joined(failures []error, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, tokens.ErrCancelled) {
		return err
	}
	return errors.Join(append(failures, err)...)
}

// failuresOf are the failures of jobs, one for each token: jobs of one token stand
// together.
func failuresOf(jobs []*job) []error {
	var list []error
	for len(jobs) > 0 {
		first := jobs[0]
		failure := fmt.Errorf("%w: %s", tokens.ErrNoDevice, first.selects)
		for len(jobs) > 0 && jobs[0].token.ID == first.token.ID {
			if jobs[0].err != nil {
				failure = jobs[0].err
			}
			jobs = jobs[1:]
		}
		list = append(list, tokens.FailureOf(first.token, typeName, failure))
	}
	return list
}

// NamesKey reports whether a URI was given to unlock with, so that no key is taken on
// the word of the header alone.
func (h *Handler) NamesKey() bool {
	u, given := h.adminURI()
	return given && u.namesToken() && u.namesObject()
}

// adminURI is the URI that the administrator gave, the zero value for none.
func (h *Handler) adminURI() (u uri, given bool) {
	if h.UnlockURI == "" || h.UnlockURI == auto {
		return uri{}, false
	}
	u, err := parseURI(h.UnlockURI)
	return u, err == nil
}

// useAdmin takes the PIN from an administrator's URI and says what of it has no
// effect.
func (r *run) useAdmin(u uri) {
	r.admin = u
	for _, name := range []string{"module-path", "module-name"} {
		if _, ok := u.query[name]; ok {
			r.ui.Note("PKCS#11 modules are not taken from a URI: " + name + " is ignored, " + moduleOption + "= names one")
		}
	}
}

// jobs makes the jobs of a request and the failures of tokens that cannot be one.
func (h *Handler) jobs(req *tokens.UnlockRequest) (jobs []*job, failures []error, err error) {
	admin, given := h.adminURI()
	if h.UnlockURI != "" && h.UnlockURI != auto && !given {
		_, err := parseURI(h.UnlockURI)
		return nil, nil, tokens.Usagef("the URI to unlock with %w", err)
	}
	if req.KeyData.Len() > 0 {
		jobs, err = keyFileJobs(req.KeyData, admin)
		return jobs, nil, err
	}
	if len(req.Tokens) == 0 {
		return nil, nil, errors.New("the volume has no token of type " + Type)
	}
	for _, t := range req.Tokens {
		r, err := parse(t.Raw)
		if err == nil && r.unusable != "" {
			err = fmt.Errorf("%w: %s", tokens.ErrUnsupported, r.unusable)
		}
		if err != nil {
			failures = append(failures, tokens.FailureOf(t, typeName, err))
			continue
		}
		selects, err := r.uri.forStorage().narrowed(admin.forStorage())
		if err != nil {
			failures = append(failures, tokens.FailureOf(t, typeName, err))
			continue
		}
		jobs = append(jobs, &job{token: t, record: r, selects: selects})
	}
	return jobs, failures, nil
}

// keyFileJobs are the jobs for a volume whose ciphertext or point is a file. What
// the padding is, nothing says: systemd takes PKCS#1 v1.5.
func keyFileJobs(data secret.Secret, selects uri) ([]*job, error) {
	if n := data.Len(); n < minKey || n > maxKey {
		return nil, fmt.Errorf("key file has %d bytes: that is neither a PKCS#11 ciphertext nor a point", n)
	}
	var jobs []*job
	for _, padding := range []wire.Padding{wire.PKCS1, wire.OAEPSHA256, wire.OAEPSHA1} {
		r := &record{key: data.Bytes(), padding: padding}
		jobs = append(jobs, &job{token: luks2.Token{ID: -1, Type: Type}, record: r, selects: selects.forStorage()})
		if r.ec() {
			break
		}
	}
	return jobs, nil
}
