package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/internal/durable"
	"luksmith/internal/gpt"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// followKey is the private key that signs values for tokens with a PIN or a latch: for
// those nobody has the secret that a new key would need.
const followKey = "etc/luksmith/follow-key.pem"

// readFollowKey reads the key; nil where there is none. It must be for root alone, and on an
// encrypted file system: whoever has it can have every such token open in any state.
func readFollowKey(a *app) (*rsa.PrivateKey, error) {
	path := filepath.Join(a.root, followKey)
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := mayUseKey(a, path, r); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM text", path)
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if rsaKey, ok := key.(*rsa.PrivateKey); ok && err == nil {
		return rsaKey, nil
	}
	return nil, fmt.Errorf("%s is not an RSA key", path)
}

func mayUseKey(a *app, path string, r *os.File) error {
	info, err := r.Stat()
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || owner.Uid != 0 || info.Mode().Perm()&0o077 != 0 {
		return tokens.WithHint(fmt.Errorf("%w: %s is not a file for root alone", cli.ErrRefused, path), "chown root: "+path+"; chmod 600 "+path)
	}
	if _, err := a.tree.luksBehind(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%w: %s is not on an encrypted volume, so whoever takes the disk has it: %w", cli.ErrRefused, path, err)
	}
	return nil
}

// signedToken is a token that gets signatures in place of keyslots.
type signedToken struct {
	token   tpm2.BootToken
	states  []tpm2.BootState
	pcrs    []int
	keep    map[string]bool // entries whose values cannot be told, or are in doubt
	present map[int][]byte
	full    error // why some of the states are not among them, nil if all are
}

// planSigned finds the tokens of the volume that take values which our key signs, and
// for which states. Of which PCRs has to be said by a person: a signature over fewer
// opens such a token too, and whoever can write the disk can change what it says.
func (f *following) planSigned(ctx context.Context, p *followPlan, key *rsa.PrivateKey, l *outlook) error {
	if key == nil {
		return nil
	}
	want, err := f.app.tpm2().NamedPCRs()
	if w, _ := f.known(p.header.UUID); err == nil && want == nil && w.Signed != "" {
		want, err = pcrsOf(w.Signed)
	}
	if err != nil {
		return err
	}
	for _, t := range p.tokens {
		pcrs, ok := t.SignedBy(&key.PublicKey)
		if !ok || !predictable(pcrs) || p.altered(&t) {
			continue
		}
		if !slices.Equal(pcrs, want) {
			err = tokens.WithHint(fmt.Errorf("%w: %s says that it takes signed values of PCR %s, and nobody has said so here", cli.ErrRefused, p.nameOf(t.Token.ID), numbers(pcrs)),
				fmt.Sprintf("if that is what it was enrolled with: cryptenroll follow --tpm2-pcrs=%s %s", numbers(pcrs), p.words()))
			continue
		}
		s := signedToken{token: t, pcrs: pcrs, keep: map[string]bool{}}
		for i := range l.Next {
			n := &l.Next[i]
			values, _, _ := valuesOf(n, pcrs)
			switch {
			case n.Other:
			case values == nil || l.seen.Doubtful(imageOf(n)):
				s.keep[n.Entry.ID] = true
			default:
				s.add(n.Entry.ID, values)
				if l.separatorUnsure() && !isAsBooted(n) {
					s.add(n.Entry.ID, otherwise(n, pcrs))
				}
			}
		}
		s.present = l.running(pcrs)
		p.signed = append(p.signed, s)
	}
	p.key = key
	if err != nil && !p.hasPlain() {
		return err
	}
	if err != nil {
		f.app.msg.WarnError(err)
	}
	return p.fitSignatures(ctx)
}

func (p *followPlan) hasPlain() bool {
	return slices.ContainsFunc(p.tokens, func(t tpm2.BootToken) bool { return t.Plain })
}

// signsOnly reports whether the tokens of the volume that follow updates all get
// signatures: nobody has asked for keys that open without a person.
func (f *following) signsOnly(p *followPlan) bool {
	w, _ := f.known(p.header.UUID)
	return len(p.signed) > 0 && !p.hasPlain() && !saysNoPIN(f.app) && w.PCRs == ""
}

// cover says which entries a signature opens. The tokens that get one take values of the
// same PCRs, see planSigned, so that what holds of the first holds of all.
func (p *followPlan) cover() {
	s := &p.signed[0]
	for _, state := range p.states {
		has := func(signed tpm2.BootState) bool { return samePCRs(signed.PCRs, state.values) }
		switch {
		case state.values == nil:
		case slices.ContainsFunc(s.states, has):
			state.slot, state.signed = s.token.Token.Keyslots[0], true
		case s.full != nil && state.reason == "":
			state.full(s.full)
		}
	}
}

func (s *signedToken) add(entry string, values map[int][]byte) {
	if values != nil && !slices.ContainsFunc(s.states, func(was tpm2.BootState) bool { return samePCRs(was.PCRs, values) }) {
		s.states = append(s.states, tpm2.BootState{PCRs: values, Entry: tpm2.BootEntry{ID: entry}})
	}
}

// sign returns the token with its signatures, and whether it has others now.
func (s *signedToken) sign(key *rsa.PrivateKey) (raw json.RawMessage, changed bool, err error) {
	return s.token.Sign(&tpm2.SignRequest{Key: key, States: s.states, Keep: s.keep, Present: s.present})
}

// resigned is a token with other signatures than it has.
type resigned struct {
	of  *signedToken
	raw json.RawMessage
}

// resign makes the signatures, and returns the tokens that are to be written.
func (p *followPlan) resign() (list []resigned, err error) {
	for i := range p.signed {
		s := &p.signed[i]
		raw, changed, err := s.sign(p.key)
		if err != nil {
			return nil, err
		}
		if changed {
			list = append(list, resigned{s, raw})
		}
	}
	return list, nil
}

// replace puts the tokens into the header, if they are still what they were.
func replace(tx *luks2.Tx, list []resigned) error {
	for _, r := range list {
		was := r.of.token.Token
		now, ok := tx.Header().Token(was.ID)
		if !ok || string(now.Raw) != string(was.Raw) {
			return fmt.Errorf("token %d: %w", was.ID, luks2.ErrChanged)
		}
		t := *now
		t.Raw = r.raw
		if err := tx.ReplaceToken(t.ID, t); err != nil {
			return err
		}
	}
	return nil
}

// fitSignatures takes the oldest entries off the plan until the header has room for the
// signatures of the others.
func (p *followPlan) fitSignatures(ctx context.Context) error {
	for {
		list, err := p.resign()
		if err == nil {
			err = p.device.Rehearse(ctx, func(tx *luks2.Tx) error { return replace(tx, list) })
		}
		if err == nil || !errors.Is(err, luks2.ErrNoSpace) || !p.dropOldest(err) {
			return err
		}
	}
}

// dropOldest takes the oldest state but the running one off each token, and reports
// whether there was one.
func (p *followPlan) dropOldest(why error) (dropped bool) {
	for i := range p.signed {
		s := &p.signed[i]
		oldest := -1
		for n := range s.states {
			if !samePCRs(s.states[n].PCRs, s.present) && (oldest < 0 || gpt.CompareVersions(s.states[n].Entry.ID, s.states[oldest].Entry.ID) < 0) {
				oldest = n
			}
		}
		if oldest >= 0 {
			s.states, s.full, dropped = slices.Delete(s.states, oldest, oldest+1), why, true
		}
	}
	return dropped
}

// countSignatures counts those that sign would write.
func (p *followPlan) countSignatures() error {
	list, err := p.resign()
	for _, r := range list {
		p.signatures += len(r.of.states)
	}
	return err
}

// sign writes the signatures, in one update. It takes neither TPM nor volume key: a
// signature is no secret.
func (p *followPlan) sign(ctx context.Context) error {
	list, err := p.resign()
	if len(list) > 0 && err == nil {
		err = p.device.Update(ctx, func(tx *luks2.Tx) error { return replace(tx, list) })
	}
	if err != nil {
		p.uncover()
		return fmt.Errorf("signing for %s: %w", p.path, err)
	}
	for _, r := range list {
		r.of.token.Token.Raw = r.raw
		p.signatures += len(r.of.states)
	}
	return nil
}

// uncover takes back what was said about signatures that could not be written.
func (p *followPlan) uncover() {
	for _, s := range p.states {
		if s.signed {
			s.slot, s.signed, s.reason = luks2.AnySlot, false, "no signature was written"
		}
	}
}

// writeSignatures brings the signature file in step with the tokens of all volumes that
// are followed, if somebody asked for one. Without one of them it would lose those of
// that one, and stays.
func (f *following) writeSignatures(ctx context.Context, plans []*followPlan) error {
	path := f.signatureFile
	if path == "" && f.list != nil {
		path = f.list.SignatureFile
	}
	if path == "" || f.missing != nil {
		return nil
	}
	var list []json.RawMessage
	for _, p := range plans {
		for _, s := range p.signed {
			list = append(list, s.token.Token.Raw)
		}
	}
	others, err := f.otherTokens(ctx, plans)
	if err != nil {
		f.app.msg.WarnError(fmt.Errorf("%s is left as it is: %w", path, err))
		return ctx.Err()
	}
	text, err := tpm2.SignatureFile(append(list, others...))
	if err != nil {
		return err
	}
	path = filepath.Join(f.app.root, path)
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, text) {
		return nil
	}
	return durable.Replace(path, text)
}

// otherTokens are those of the volumes that are followed and that this call is not about.
func (f *following) otherTokens(ctx context.Context, plans []*followPlan) (list []json.RawMessage, err error) {
	if f.list == nil {
		return nil, nil
	}
	h := f.app.tpm2()
	for _, w := range f.list.Volumes {
		if slices.ContainsFunc(plans, func(p *followPlan) bool { return p.header.UUID == w.UUID }) {
			continue
		}
		v, err := f.find(ctx, &w)
		if err != nil {
			return nil, err
		}
		for _, t := range h.BootTokens(v.tokensOf(h)) {
			list = append(list, t.Token.Raw)
		}
	}
	return list, nil
}
