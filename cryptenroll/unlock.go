package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"luksmith/internal/askpass"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// unlocker opens volumes: by the one way that was asked for, or by what is there.
type unlocker struct {
	how    unlockOptions
	types  tokens.Set
	person *asking
	warn   func(error) // is told what ended one way while others are left
	known  *opened     // its PIN was right a moment ago; nil for none
}

// target is a volume to be opened.
type target struct {
	*volume
	last   func(slot int) bool // holds for keyslots that are to be tried last; nil for none
	closed []int               // tokens that are known not to open now
}

// order puts the keyslots that are to be tried last behind the others.
func (t *target) order(x, y int) int {
	switch {
	case t.last == nil || t.last(x) == t.last(y):
		return 0
	case t.last(x):
		return 1
	}
	return -1
}

// opened is a volume key and how it was got.
type opened struct {
	key  *luks2.VolumeKey
	how  string        // "passphrase", "key file /x", "tpm2 token 1"
	took time.Duration // of the way that succeeded; with a PIN the person is in it

	token    int           // that opened it; -1 without one
	pin      secret.Secret // that the token was opened with, empty without
	question string        // that the PIN answered

	passphrase secret.Secret // that opened it; empty with a token
}

// wipe forgets the keys.
func (o *opened) wipe() {
	o.key.Wipe()
	o.pin.Wipe()
	o.passphrase.Wipe()
}

// unlock opens a volume by the way that the options name; without one
// it uses what asks nobody, then the tokens whose devices are there, then a
// person.
func (u *unlocker) unlock(ctx context.Context, t *target) (*opened, error) {
	switch o := &u.how; {
	case o.given:
		return u.withGiven(ctx, t)
	case o.keyFile != "":
		return u.withKeyFile(ctx, t)
	case o.empty:
		return u.tryPassphrase(ctx, t, secret.Secret{}, "empty passphrase")
	case o.with != nil:
		return u.withTokens(ctx, t, o.with)
	case o.headless:
		return u.headless(ctx, t)
	}
	op, err := u.static(ctx, t)
	if op != nil || ctx.Err() != nil {
		return op, err
	}
	wrong := err // the passphrase of a credential did not fit
	op, absent := u.withAnyToken(ctx, t)
	if op != nil || ctx.Err() != nil {
		return op, ctx.Err()
	}
	op, err = u.byPerson(ctx, t, wrong)
	if err != nil && !errors.Is(err, tokens.ErrCancelled) && ctx.Err() == nil {
		err = errors.Join(err, absent)
	}
	return op, err
}

// headless asks nobody: credentials, tokens that need nothing, and as
// systemd 262 the empty passphrase.
func (u *unlocker) headless(ctx context.Context, t *target) (*opened, error) {
	op, wrong := u.static(ctx, t)
	if op != nil {
		return op, nil
	}
	op, absent := u.withAnyToken(ctx, t)
	if op != nil || ctx.Err() != nil {
		return op, ctx.Err()
	}
	op, err := u.tryPassphrase(ctx, t, secret.Secret{}, "empty passphrase")
	if err != nil {
		return nil, errors.Join(wrong, err, absent)
	}
	return op, nil
}

// passphraseKeyring is the description under which systemd-cryptenroll and installers
// share passphrases in the kernel keyring.
const passphraseKeyring = "cryptenroll"

// static uses $PASSWORD, the credential and the kernel keyring, whose wrong passphrases
// are nobody's fault. Without any of them it returns nil and no error.
func (u *unlocker) static(ctx context.Context, t *target) (*opened, error) {
	return u.byKeyring(ctx, t, passphraseKeyring)
}

// byKeyring is static with the key of another description.
func (u *unlocker) byKeyring(ctx context.Context, t *target, description string) (*opened, error) {
	answer, err := u.person.static().Passphrase(ctx, askpass.PassphraseQuestion{Kind: askpass.Passphrase, Disk: t.path, Keyring: description})
	if errors.Is(err, tokens.ErrNoPrompt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer answer.Wipe()
	op, err := u.tryAnswer(ctx, t, answer)
	if answer.Source == askpass.FromCache && errors.Is(err, luks2.ErrNoKey) {
		return nil, nil
	}
	return op, err
}

// tryPassphrase tries a passphrase on the slot of --unlock-slot=, or on all; those
// that are to be wiped come last, because only another one is a proof.
func (u *unlocker) tryPassphrase(ctx context.Context, t *target, passphrase secret.Secret, how string) (*opened, error) {
	defer u.person.meanwhile(fmt.Sprintf("Checking the %s takes a while by design: %s", strings.TrimPrefix(how, "the "), t.path))()
	slots := []int{u.how.slot}
	if slots[0] == luks2.AnySlot && t.last != nil {
		slots = t.header.PassphraseOrder()
		slices.SortStableFunc(slots, t.order)
	}
	var errs error
	for _, slot := range slots {
		begin := time.Now()
		vk, err := t.device.OpenKeyslot(ctx, slot, passphrase)
		if err == nil {
			return &opened{key: vk, how: how, took: time.Since(begin), token: -1, passphrase: passphrase.Clone()}, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if none, ok := errors.AsType[*luks2.NoKeyError](err); !ok || len(none.Skipped) > 0 {
			errs = errors.Join(errs, err)
		}
	}
	if errs == nil {
		return nil, u.hintSkipped(t, u.notBy(t, how, passphrase))
	}
	return nil, u.hintSkipped(t, fmt.Errorf("%s: %w", how, errs))
}

// tries reports whether a keyslot is tried: the one of --unlock-slot=, or those that
// need not be named.
func (u *unlocker) tries(s *tokens.Slot) bool {
	if u.how.slot == luks2.AnySlot {
		return s.Skipped == ""
	}
	return u.how.slot == s.ID
}

// hintSkipped names the option that would try a keyslot which was left out.
func (u *unlocker) hintSkipped(t *target, err error) error {
	for _, s := range t.slots {
		if (s.Usable() || s.ByPerson()) && s.Skipped != "" && u.how.slot == luks2.AnySlot {
			return tokens.WithHint(err, fmt.Sprintf("%s was not tried: it is %s; --unlock-slot=%d names it", s.String(), s.Skipped, s.ID))
		}
	}
	return err
}
