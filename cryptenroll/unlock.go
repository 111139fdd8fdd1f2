package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"luksmith/internal/askpass"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

const (
	// maxTries is how often a passphrase may be mistyped, as in
	// systemd-cryptenroll.
	maxTries = 5
	// maxKeyFile is libcryptsetup's limit for key files.
	maxKeyFile = 8 << 20
)

// opened is a volume key and how it was got.
type opened struct {
	key  *luks2.VolumeKey
	how  string        // "passphrase", "key file /x", "tpm2 token 1"
	took time.Duration // of the way that succeeded; with a PIN the person is in it

	token    int           // that opened it; -1 without one
	pin      secret.Secret // that the token was opened with, empty without
	question string        // that the PIN answered
}

// wipe forgets the keys.
func (o *opened) wipe() {
	o.key.Wipe()
	o.pin.Wipe()
}

// unlock opens the volume of a plan by the way that the options name; without one
// it uses what asks nobody, then the tokens whose devices are there, then a
// person. Keyslots that are to be wiped are tried last.
func (a *app) unlock(ctx context.Context, p *plan) (*opened, error) {
	o := &a.options.unlock
	switch {
	case o.keyFile != "":
		return a.unlockWithKeyFile(ctx, p)
	case o.empty:
		return a.tryPassphrase(ctx, p, secret.Secret{}, "empty passphrase")
	case o.with != nil:
		return a.unlockWithTokens(ctx, p, o.with)
	case o.headless:
		return a.unlockHeadless(ctx, p)
	}
	op, err := a.unlockStatic(ctx, p)
	if op != nil || ctx.Err() != nil {
		return op, err
	}
	wrong := err // the passphrase of a credential did not fit
	if op := a.unlockWithAnyToken(ctx, p); op != nil || ctx.Err() != nil {
		return op, ctx.Err()
	}
	return a.unlockByPerson(ctx, p, wrong)
}

// unlockHeadless asks nobody: credentials, tokens that need nothing, and as
// systemd 262 the empty passphrase.
func (a *app) unlockHeadless(ctx context.Context, p *plan) (*opened, error) {
	op, wrong := a.unlockStatic(ctx, p)
	if op != nil {
		return op, nil
	}
	if op := a.unlockWithAnyToken(ctx, p); op != nil {
		return op, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	op, err := a.tryPassphrase(ctx, p, secret.Secret{}, "empty passphrase")
	if err != nil {
		return nil, errors.Join(wrong, err)
	}
	return op, nil
}

// unlockStatic uses $PASSWORD and the credential. Without either it returns nil
// and no error.
func (a *app) unlockStatic(ctx context.Context, p *plan) (*opened, error) {
	answer, err := a.staticAsker().Passphrase(ctx, askpass.PassphraseQuestion{Kind: askpass.Passphrase, Disk: p.path})
	if errors.Is(err, tokens.ErrNoPrompt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer answer.Wipe()
	return a.tryAnswer(ctx, p, answer)
}

// unlockByPerson asks until a passphrase fits. wrong is the failure of a source
// that asked nobody; the first question then says that an answer was wrong.
func (a *app) unlockByPerson(ctx context.Context, p *plan, wrong error) (*opened, error) {
	kind := promptKind(p.slots)
	if kind == "" {
		return nil, errors.Join(wrong, p.nothingToType())
	}
	attempt := 0
	if wrong != nil {
		attempt = 1
	}
	for try := range maxTries {
		answer, err := a.asker().Passphrase(ctx, askpass.PassphraseQuestion{Kind: kind, Disk: p.path, Current: true, Attempt: attempt + try})
		if errors.Is(err, tokens.ErrNoPrompt) && wrong != nil {
			return nil, wrong
		}
		if err != nil {
			return nil, errors.Join(wrong, err)
		}
		op, err := a.tryAnswer(ctx, p, answer)
		if errors.Is(err, luks2.ErrNoKey) && try+1 < maxTries {
			a.warnOf(explain(answer))
		}
		answer.Wipe()
		if op != nil || !errors.Is(err, luks2.ErrNoKey) {
			return op, err
		}
		wrong = err
	}
	return nil, fmt.Errorf("giving up after %d tries: %w", maxTries, wrong)
}

// nothingToType says why a person cannot open the volume.
func (p *plan) nothingToType() error {
	err := error(&noTyping{p.path})
	for _, s := range p.slots {
		if !s.Usable() {
			err = errors.Join(err, fmt.Errorf("%s cannot be used: %s", slotText(s.ID, s.Kind, s.Label), s.Problem))
		}
	}
	return err
}

// noTyping is luks2.ErrNoKey before any key was tried.
type noTyping struct{ path string }

func (e *noTyping) Error() string {
	return e.path + " has no passphrase and no recovery key that could be used here"
}

// Is matches luks2.ErrNoKey.
func (e *noTyping) Is(target error) bool { return target == luks2.ErrNoKey }

// warnOf prints what is wrong with an answer, if that is known, before the next
// question.
func (a *app) warnOf(err error) {
	if err != nil {
		a.msg.WarnError(err)
	}
}

// explain says what is wrong with a mistyped recovery key; nil for other texts.
func explain(answer askpass.Answer) error {
	for _, s := range answer.Secrets {
		if err := recovery.Explain(s); err != nil {
			return err
		}
	}
	return nil
}

// promptKind is what a person can be asked for, "" if no slot opens with typed
// text.
func promptKind(slots []tokens.Slot) askpass.Kind {
	var pass, rec bool
	for _, s := range slots {
		if s.ByPerson() {
			rec = rec || s.Kind == "recovery"
			pass = pass || s.Kind != "recovery"
		}
	}
	switch {
	case pass && rec:
		return askpass.PassphraseOrRecoveryKey
	case rec:
		return askpass.RecoveryKey
	case pass:
		return askpass.Passphrase
	}
	return ""
}

// tryAnswer tries every secret of an answer, each as typed and then as the
// recovery key that it may spell.
func (a *app) tryAnswer(ctx context.Context, p *plan, answer askpass.Answer) (*opened, error) {
	how := sourceText(answer)
	var last error = luks2.ErrNoKey
	for _, s := range answer.Secrets {
		candidates := recovery.Candidates(s)
		op, err := a.tryCandidates(ctx, p, candidates, how)
		secret.WipeAll(candidates)
		if op != nil || ctx.Err() != nil {
			return op, err
		}
		last = err
	}
	return nil, last
}

// sourceText says where a passphrase came from.
func sourceText(answer askpass.Answer) string {
	switch answer.Source {
	case askpass.FromEnvironment:
		return "passphrase in $" + answer.Name
	case askpass.FromCredential:
		return "credential " + answer.Name
	case askpass.FromFile:
		return "passphrase in " + answer.Name
	}
	return "passphrase"
}

func (a *app) tryCandidates(ctx context.Context, p *plan, candidates []secret.Secret, how string) (op *opened, err error) {
	for _, c := range candidates {
		if op, err = a.tryPassphrase(ctx, p, c, how); op != nil || ctx.Err() != nil {
			return op, err
		}
	}
	return nil, err
}

// tryPassphrase tries a passphrase on the slot of --unlock-slot=, or on all; those
// that are to be wiped come last, because only another one is a proof.
func (a *app) tryPassphrase(ctx context.Context, p *plan, passphrase secret.Secret, how string) (*opened, error) {
	slots := []int{a.options.unlock.slot}
	if slots[0] == luks2.AnySlot && len(p.wipe) > 0 {
		slots = p.header.PassphraseOrder()
		slices.SortStableFunc(slots, func(x, y int) int { return btoi(p.wiped(x)) - btoi(p.wiped(y)) })
	}
	var errs error
	for _, slot := range slots {
		begin := time.Now()
		vk, err := p.device.OpenKeyslot(ctx, slot, passphrase)
		if err == nil {
			return &opened{key: vk, how: how, took: time.Since(begin), token: -1}, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if !errors.Is(err, luks2.ErrNoKey) || errs == nil {
			errs = errors.Join(errs, err)
		}
	}
	if errs == nil {
		errs = luks2.ErrNoKey
	}
	return nil, fmt.Errorf("%s: %w", how, errs)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unlockWithKeyFile reads --unlock-key-file=.
func (a *app) unlockWithKeyFile(ctx context.Context, p *plan) (*opened, error) {
	key, err := a.options.unlock.readKeyFile(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", a.options.unlock.keyFile, err)
	}
	defer key.Wipe()
	return a.tryPassphrase(ctx, p, key, "key file "+a.options.unlock.keyFile)
}

// readKeyFile reads the part of the key file that the options name; "-" is the
// standard input. A line end at the end belongs to the key, as for cryptsetup.
func (o *unlockOptions) readKeyFile(ctx context.Context) (secret.Secret, error) {
	f := os.Stdin
	if o.keyFile != "-" {
		var err error
		// Not blocking: a FIFO without a writer must not hang the command.
		if f, err = os.OpenFile(o.keyFile, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			return secret.Secret{}, errors.Unwrap(err)
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil {
			return secret.Secret{}, err
		} else if info.IsDir() {
			return secret.Secret{}, errors.New("it is a folder")
		}
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	if o.keyOffset > 0 {
		if _, err := io.CopyN(io.Discard, f, int64(o.keyOffset)); err != nil {
			return secret.Secret{}, fmt.Errorf("skipping %d bytes: %w", o.keyOffset, err)
		}
	}
	var r io.Reader = f
	if o.keySize > 0 {
		if o.keySize > maxKeyFile {
			return secret.Secret{}, fmt.Errorf("%d bytes asked for, at most %d are allowed", o.keySize, maxKeyFile)
		}
		r = io.LimitReader(f, int64(o.keySize))
	}
	key, err := secret.Read(r, maxKeyFile)
	switch {
	case ctx.Err() != nil:
		key.Wipe()
		return secret.Secret{}, context.Cause(ctx)
	case errors.Is(err, secret.ErrTooLong):
		return key, fmt.Errorf("it has more than %d bytes", maxKeyFile)
	case err == nil && o.keySize > 0 && uint64(key.Len()) < o.keySize:
		defer key.Wipe()
		return secret.Secret{}, fmt.Errorf("it ends after %d of %d bytes", key.Len(), o.keySize)
	}
	return key, err
}

// unlockWithAnyToken tries the tokens of every type whose device is present, the
// types in the order of tokens/all. Failures are reported and do not end the run:
// a person can still be asked.
func (a *app) unlockWithAnyToken(ctx context.Context, p *plan) *opened {
	for _, h := range a.unlocking {
		u, ok := h.(tokens.Unlocker)
		if !ok || len(a.tokensOf(p, u)) == 0 {
			continue
		}
		op, err := a.unlockWithTokens(ctx, p, u)
		if op != nil {
			return op
		}
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, tokens.ErrNoPrompt) && !errors.Is(err, tokens.ErrCancelled) {
			a.msg.WarnError(err)
		}
	}
	return nil
}

// tokensOf are the usable tokens of a type that may open; with --unlock-slot= only
// that of the slot.
func (a *app) tokensOf(p *plan, u tokens.Unlocker) (list []luks2.Token) {
	for _, s := range p.slots {
		if a.options.unlock.slot != luks2.AnySlot && a.options.unlock.slot != s.ID || s.Kind != u.Name() || !s.Usable() {
			continue
		}
		list = append(list, s.Tokens...)
	}
	list = slices.DeleteFunc(list, func(t luks2.Token) bool { return slices.Contains(p.closed, t.ID) })
	slices.SortStableFunc(list, func(x, y luks2.Token) int {
		return btoi(p.wiped(x.Keyslots[0])) - btoi(p.wiped(y.Keyslots[0]))
	})
	return list
}

// unlockWithTokens lets a token type unlock the volume.
func (a *app) unlockWithTokens(ctx context.Context, p *plan, u tokens.Unlocker) (*opened, error) {
	list := a.tokensOf(p, u)
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no %s token that can be used here: %w", p.path, u.Name(), luks2.ErrNoKey)
	}
	op := &opened{token: -1}
	ui := &listening{UI: a.askerForPIN()}
	begin := time.Now()
	unlocked, err := tokens.UnlockWithRetries(ctx, u, a.unlockRequest(p, list, op), ui)
	if err != nil {
		ui.last.Wipe()
		return nil, err
	}
	unlocked.Passphrase.Wipe()
	op.token, op.pin, op.question, op.took = unlocked.Token.ID, ui.last, ui.text, time.Since(begin)
	op.how = fmt.Sprintf("%s token %d", u.Name(), op.token)
	return op, nil
}

// unlockRequest asks for the passphrase of one of the tokens. The volume key that
// comes out goes into op, or is wiped when op is nil.
func (a *app) unlockRequest(p *plan, list []luks2.Token, op *opened) *tokens.UnlockRequest {
	return &tokens.UnlockRequest{Volume: p.volume(), Tokens: list,
		Opens: func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
			vk, err := p.device.OpenKeyslot(ctx, t.Keyslots[0], passphrase)
			switch {
			case errors.Is(err, luks2.ErrNoKey):
				return tokens.ErrWrongKey
			case err != nil:
				return err
			case op == nil:
				vk.Wipe()
			default:
				op.key = vk
			}
			return nil
		}}
}
