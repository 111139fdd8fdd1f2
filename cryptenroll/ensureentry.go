package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"luksmith/internal/durable"
	"luksmith/internal/spec"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
	"luksmith/tokens/tpm2"
)

// entry is a keyslot of a spec with handlers of its own, whose options are set.
type entry struct {
	*spec.Keyslot
	types    tokens.Set
	handler  tokens.Enroller // nil for a passphrase
	kdf      kdfOptions
	priority luks2.Priority
	person   *asking
}

// newEntry reads the values of the options. Errors name the place in the spec.
func newEntry(k *spec.Keyslot, a *app) (*entry, error) {
	e := &entry{Keyslot: k, types: a.types(), kdf: kdfOptions{kind: string(luks2.KDFArgon2id)}}
	e.person = &asking{headless: true, pinFile: k.PINFile.Value, newPINFile: k.PINFile.Value, environment: a.environment, msg: a.msg}
	if k.From != nil && k.From.By == spec.Ask {
		e.person.headless, e.person.terminalOnly = false, true
	}
	var err error
	if e.priority, err = parsePriority(k.Priority.Value); err != nil {
		return nil, k.Priority.Wrap(err)
	}
	if _, err = e.recipients(); err != nil {
		return nil, err
	}
	e.handler, _ = e.types.ByName(k.Type).(tokens.Enroller)
	for _, o := range k.Options {
		if err := e.set(o); err != nil {
			return nil, o.Wrap(err)
		}
	}
	if e.handler == nil {
		if err := e.kdf.check(); err != nil {
			return nil, k.Wrap(err)
		}
	}
	return e, nil
}

// set sets one option.
func (e *entry) set(o spec.Option) error {
	if e.handler == nil {
		return e.kdf.set(o.Name, o.Value)
	}
	for _, h := range e.types {
		for _, opt := range h.Options() {
			if opt.Name != o.Name || opt.Place&tokens.Enrolling == 0 {
				continue
			}
			if opt.List && o.Value == "list" {
				return errors.New("list is for the command line; want a device or auto")
			}
			return opt.Set(o.Value)
		}
	}
	return fmt.Errorf("there is no option --%s", o.Name)
}

// set sets one of the options by its name on the command line.
func (k *kdfOptions) set(name, value string) (err error) {
	if name == "pbkdf" {
		k.kind = value
		return nil
	}
	dst := map[string]*int{"pbkdf-memory": &k.memoryKiB, "pbkdf-parallel": &k.parallel, "pbkdf-force-iterations": &k.iterations}[name]
	if *dst, err = strconv.Atoi(value); err != nil {
		return fmt.Errorf("%.20q is not a number", value)
	}
	return nil
}

// source is the secret of the entry that a file holds, and its name; no name if the
// spec names none.
func (e *entry) source(v *volume) (path string, trim bool) {
	switch {
	case e.Type == spec.Recovery && e.From != nil:
		return e.From.Value, true
	case e.handsOut():
		return "", false
	case e.Type == spec.Recovery:
		return e.forVolume(e.To.File, v), true
	case e.Type != spec.Password:
		return "", false
	case e.From.By == spec.Credential:
		return credentialPath(e.From.Value), false
	case e.From.By == spec.Ask:
		return "", false
	}
	return e.From.Value, e.From.By == spec.File
}

// credentialPath is where a service finds a credential. Without a folder of them it is
// the path of a file that is not there.
func credentialPath(name string) string {
	return filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), filepath.Base(name))
}

// readSource reads a passphrase. The error is fs.ErrNotExist when there is no file.
func readSource(ctx context.Context, path string, trim bool) (secret.Secret, error) {
	if path == "" || !filepath.IsAbs(path) {
		return secret.Secret{}, fmt.Errorf("reading %s: $CREDENTIALS_DIRECTORY is not set: %w", path, fs.ErrNotExist)
	}
	s, err := (&unlockOptions{keyFile: path}).readKeyFile(ctx)
	if err != nil {
		return s, fmt.Errorf("reading %s: %w", path, err)
	}
	if b := s.Bytes(); trim && len(b) > 0 && b[len(b)-1] == '\n' {
		s.Truncate(len(b) - 1)
	}
	if s.Len() == 0 {
		return s, fmt.Errorf("reading %s: it is empty", path)
	}
	return s, nil
}

// enroller makes the keyslot of the entry on a volume.
func (e *entry) enroller(v *volume) enroller {
	path, trim := e.source(v)
	switch {
	case e.Type == spec.Password && path == "":
		return &passphraseEnroller{person: e.person, kdf: &e.kdf}
	case e.Type == spec.Password:
		return &fileEnroller{path: path, trim: trim, kdf: &e.kdf}
	case e.handsOut():
		return &handedKey{e.handler.(*recovery.Handler), e.To}
	case e.Type == spec.Recovery:
		return &keyMaker{Handler: e.handler.(*recovery.Handler), path: path, make: e.From == nil}
	}
	return e.handler
}

// request asks for the keyslot. tokens/tpm2 would take a token with the same options
// for the one that is wanted, whatever its label is; here the label decides.
func (e *entry) request(v *volume, compat int, old []int) *tokens.EnrollRequest {
	r := &tokens.EnrollRequest{Volume: v.forTokens(), Label: e.Label, Compat: compat}
	_, isTPM2 := e.handler.(*tpm2.Handler)
	r.Volume.Tokens = slices.DeleteFunc(slices.Clone(r.Volume.Tokens), func(t luks2.Token) bool {
		return isTPM2 && t.Type == e.handler.Type() || slices.ContainsFunc(t.Keyslots, func(id int) bool { return slices.Contains(old, id) })
	})
	return r
}

// fileEnroller makes a keyslot for the passphrase in a file.
type fileEnroller struct {
	path string
	trim bool
	kdf  *kdfOptions
}

// Plan says what Enroll makes.
func (f *fileEnroller) Plan(*tokens.EnrollRequest) (string, error) {
	return fmt.Sprintf("passphrase in %s, %s", f.path, f.kdf.kind), nil
}

// Enroll reads the file and measures the machine.
func (f *fileEnroller) Enroll(ctx context.Context, req *tokens.EnrollRequest, _ tokens.UI) (*tokens.Enrollment, error) {
	passphrase, err := readSource(ctx, f.path, f.trim)
	if err != nil {
		return nil, err
	}
	kdf, err := f.kdf.choose(ctx)
	if err != nil {
		passphrase.Wipe()
		return nil, err
	}
	return &tokens.Enrollment{Passphrase: passphrase, KDF: kdf, Proven: true, Label: req.Label, Requires: []string{"passphrase"}}, nil
}

// keyMaker enrols the recovery key in a file, and makes the file first if it is to:
// whatever ends the command, nobody is left with a keyslot whose key is nowhere.
type keyMaker struct {
	*recovery.Handler
	path string
	make bool
}

// Plan says where the key is, or will be.
func (k *keyMaker) Plan(*tokens.EnrollRequest) (string, error) {
	if k.make {
		return "recovery key, to be kept in " + k.path, nil
	}
	return "recovery key from " + k.path, nil
}

// Enroll enrols the key in the file.
func (k *keyMaker) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	if k.make {
		if err := writeNewKey(k.path); err != nil {
			return nil, fmt.Errorf("writing a recovery key to %s: %w", k.path, err)
		}
	}
	h := *k.Handler
	h.KeyFile = k.path
	return h.Enroll(ctx, req, ui)
}

// writeNewKey makes a file with a new recovery key, complete and on the disk, unless
// there is one: then the key in it is meant.
func writeNewKey(path string) error {
	info, err := os.Lstat(path)
	if err == nil {
		return mayBeOurs(info)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key := recovery.Generate()
	defer key.Wipe()
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), recovery.Print(f, key), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return durable.Names(filepath.Dir(path))
}

// mayBeOurs refuses a file that somebody else can have put there, who then would know
// the key.
func mayBeOurs(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || !ok || int(st.Uid) != os.Geteuid() {
		return errors.New("it is there and not a file that only you can read, so that others may know the key in it: remove it, or enrol that key with from")
	}
	return nil
}

// opensSlot reports whether the secret in a file opens a keyslot, as it is or as the
// recovery key that it may spell.
func (v *volume) opensSlot(ctx context.Context, slot int, s secret.Secret) (bool, error) {
	list := recovery.Candidates(s)
	defer secret.WipeAll(list)
	for _, c := range list {
		vk, err := v.device.OpenKeyslot(ctx, slot, c)
		if err == nil {
			vk.Wipe()
			return true, nil
		}
		if !errors.Is(err, luks2.ErrNoKey) {
			return false, err
		}
	}
	return false, nil
}
