package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/internal/askpass"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

// maxTries is how often a passphrase may be mistyped, as in systemd-cryptenroll.
const maxTries = 5

// byPerson asks until a passphrase fits. wrong is the failure of a source
// that asked nobody; the first question then says that an answer was wrong.
func (u *unlocker) byPerson(ctx context.Context, t *target, wrong error) (*opened, error) {
	kind := u.promptKind(t)
	if kind == "" {
		return nil, errors.Join(wrong, u.hintSkipped(t, t.nothingToType()))
	}
	attempt := 0
	if wrong != nil {
		attempt = 1
	}
	for try := range maxTries {
		answer, err := u.person.asker().Passphrase(ctx, askpass.PassphraseQuestion{Kind: kind, Disk: t.path, Current: true, Attempt: attempt + try})
		switch {
		case errors.Is(err, tokens.ErrNoPrompt) && wrong != nil:
			return nil, wrong
		case errors.Is(err, tokens.ErrCancelled):
			return nil, err // the wrong answers were said
		case err != nil:
			return nil, errors.Join(wrong, err)
		}
		op, err := u.tryAnswer(ctx, t, answer)
		if errors.Is(err, luks2.ErrNoKey) && try+1 < maxTries {
			u.warnOf(explain(answer))
		}
		if op != nil {
			u.remember(answer)
		}
		answer.Wipe()
		if op != nil || !errors.Is(err, luks2.ErrNoKey) {
			return op, err
		}
		wrong = err
	}
	return nil, u.hintSkipped(t, &notOpened{fmt.Sprintf("%d wrong answers: none is a %s of %s", maxTries, kind, t.path)})
}

// promptKind is what a person can be asked for to open the volume.
func (u *unlocker) promptKind(t *target) askpass.Kind {
	return promptKind(slices.DeleteFunc(slices.Clone(t.slots), func(s tokens.Slot) bool { return u.how.slot == luks2.AnySlot && !u.tries(&s) }))
}

// remember puts a typed answer that was right into the kernel keyring, where that is
// wanted.
func (u *unlocker) remember(answer askpass.Answer) {
	for _, s := range answer.Secrets {
		if err := u.person.asker().Remember(passphraseKeyring, s); err != nil {
			u.warn(err)
		}
	}
}

// nothingToType says why a person cannot open the volume.
func (v *volume) nothingToType() error {
	none := &noTyping{path: v.path}
	err := error(none)
	for _, s := range v.slots {
		if s.WayIn() {
			continue
		}
		why := errors.New(s.State())
		if obstacle := v.header.KeyslotObstacle(s.ID); errors.Is(obstacle, luks2.ErrUnsupported) {
			why, none.unsupported = obstacle, true // with its hint
		}
		err = errors.Join(err, fmt.Errorf("%s cannot be used: %w", s.String(), why))
	}
	return err
}

// noTyping is luks2.ErrNoKey before any key was tried, unless there are keyslots that
// a right passphrase would open elsewhere.
type noTyping struct {
	path        string
	unsupported bool
}

func (e *noTyping) Error() string {
	return e.path + " has no passphrase and no recovery key that could be used here"
}

// Is matches luks2.ErrNoKey.
func (e *noTyping) Is(target error) bool { return target == luks2.ErrNoKey && !e.unsupported }

// warnOf prints what is wrong with an answer, if that is known, before the next
// question.
func (u *unlocker) warnOf(err error) {
	if err != nil {
		u.warn(err)
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
			_, isKey := s.Handler.(*recovery.Handler)
			rec, pass = rec || isKey, pass || !isKey
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
func (u *unlocker) tryAnswer(ctx context.Context, t *target, answer askpass.Answer) (*opened, error) {
	how := sourceText(answer)
	var last error = luks2.ErrNoKey
	for _, s := range answer.Secrets {
		candidates := recovery.Candidates(s)
		op, err := u.tryCandidates(ctx, t, candidates, how)
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
	case askpass.FromCache:
		return "passphrase in the kernel keyring"
	case askpass.FromFile:
		return "passphrase in " + answer.Name
	}
	return "passphrase"
}

func (u *unlocker) tryCandidates(ctx context.Context, t *target, candidates []secret.Secret, how string) (op *opened, err error) {
	for _, c := range candidates {
		if op, err = u.tryPassphrase(ctx, t, c, how); op != nil || ctx.Err() != nil {
			return op, err
		}
	}
	return nil, err
}

// withGiven tries the passphrase that came with the call, as one that was typed.
func (u *unlocker) withGiven(ctx context.Context, t *target) (*opened, error) {
	candidates := recovery.Candidates(u.how.passphrase)
	defer secret.WipeAll(candidates)
	return u.tryCandidates(ctx, t, candidates, "passphrase")
}
