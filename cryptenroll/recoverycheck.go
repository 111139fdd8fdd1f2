package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery/escrow"
)

// keptKey is one run of recovery check: it proves that a recovery key which somebody
// keeps opens the volume. The key is never shown.
type keptKey struct {
	app      *app
	slot     slotName
	escrow   string // --escrow=
	identity string // --identity=
}

func checkVerb(a *app) *cobra.Command {
	k := &keptKey{app: a}
	s := newSection("Check")
	addSlot(s.flags, &k.slot, "slot", "keyslot `N` only, a number or a label")
	s.flags.StringVar(&k.escrow, "escrow", "", "the key in `FILE` of --recovery-escrow=, - for standard input (default: one that is typed)")
	s.flags.StringVar(&k.identity, "identity", "", "decrypt it with the identities of age in `FILE`, - for standard input")
	return a.onDevice("check", "Prove that a recovery key which is kept opens the volume",
		[]section{s, a.commonSection()}, k.run).command(a)
}

func (k *keptKey) run(ctx context.Context, path string) error {
	if err := k.refuse(); err != nil {
		return err
	}
	v, err := k.app.openVolume(ctx, path, false)
	if err != nil {
		return err
	}
	if err := k.slot.resolve(v); err != nil {
		return err
	}
	if len(v.recoverySlots(k.slot)) == 0 {
		return tokens.WithHint(fmt.Errorf("%s has no such keyslot of a recovery key: %w", v.path, luks2.ErrNoKey),
			fmt.Sprintf("%s %s lists what it has; %s test tries any key", k.app.name, v.words(), k.app.name))
	}
	result, err := k.try(ctx, v)
	if err != nil {
		return k.failed(v, err)
	}
	return k.print(v, result)
}

func (k *keptKey) refuse() error {
	switch {
	case (k.escrow == "") != (k.identity == ""):
		return usagef("--escrow= and --identity= go together")
	case k.escrow == "-" && k.identity == "-":
		return usagef("--escrow= and --identity= cannot both be the standard input")
	}
	return nil
}

// try opens the volume with the key from escrow, or with one that is typed.
func (k *keptKey) try(ctx context.Context, v *volume) (*testResult, error) {
	if k.escrow == "" {
		return k.typed(ctx, v)
	}
	e, err := k.envelope()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", k.escrow, err)
	}
	if e.UUID != v.header.UUID {
		return nil, cli.WrongDevice(fmt.Errorf("%s has a key of volume %q, and %s is %s", k.escrow, e.UUID, v.path, v.header.UUID))
	}
	key, err := k.decrypt(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.escrow, err)
	}
	defer key.Wipe()
	result, err := k.opens(ctx, v, []secret.Secret{key})
	switch {
	case err != nil:
		return nil, err
	case result == nil:
		return nil, tokens.WithHint(fmt.Errorf("the key in %s, of keyslot %d on %s, does not open %s: %w", k.escrow, e.Slot, e.Created, v.path, luks2.ErrNoKey),
			"it was rotated or wiped since, or the file is of another copy of the volume: the newest file counts")
	}
	result.With = "escrowed key of " + e.Created
	return result, nil
}

func (k *keptKey) envelope() (*escrow.Envelope, error) {
	if k.escrow == "-" {
		return escrow.Read(os.Stdin)
	}
	f, err := os.Open(k.escrow)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	return escrow.Read(f)
}

// decrypt reads the identities and forgets them.
func (k *keptKey) decrypt(ctx context.Context, e *escrow.Envelope) (secret.Secret, error) {
	identities, err := (&unlockOptions{keyFile: k.identity}).readKeyFile(ctx)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading identities in %s: %w", k.identity, err)
	}
	defer identities.Wipe()
	return e.Open(identities)
}

// typed asks for the key until one opens.
func (k *keptKey) typed(ctx context.Context, v *volume) (*testResult, error) {
	asker := k.app.asking().asker()
	for try := range maxTries {
		answer, err := asker.Passphrase(ctx, askpass.PassphraseQuestion{Kind: askpass.RecoveryKey, Disk: v.path, Attempt: try})
		if errors.Is(err, tokens.ErrNoPrompt) && try > 0 {
			break // what was configured does not open
		}
		if err != nil {
			return nil, err
		}
		result, err := k.opens(ctx, v, answer.Secrets)
		if result == nil && err == nil {
			k.app.unlocker().warnOf(explain(answer))
		}
		answer.Wipe()
		if result != nil || err != nil {
			return result, err
		}
	}
	return nil, fmt.Errorf("this recovery key does not open %s: %w", v.path, luks2.ErrNoKey)
}

// opens tries keys on the keyslots of recovery keys; nil if none opens.
func (k *keptKey) opens(ctx context.Context, v *volume, keys []secret.Secret) (*testResult, error) {
	for _, s := range v.recoverySlots(k.slot) {
		for _, key := range keys {
			r := v.resultOf(s.ID)
			if err := v.testPassphrase(ctx, s.ID, key, &r); err != nil {
				return nil, err
			}
			if r.Opens {
				r.Tried = true
				return &r, nil
			}
		}
	}
	return nil, nil
}

func (k *keptKey) print(v *volume, r *testResult) error {
	if mode := k.app.options.json; mode.On() {
		return k.app.out.JSON(mode, testView{v.place(), v.header.UUID, true, []testResult{*r}, nil})
	}
	k.app.out.Linef("%s opens %s: %s, %d ms", tokens.SlotText(r.Slot, r.Type, r.Label), v.path, r.With, r.Milliseconds)
	return nil
}

// failed prints the document of a key that does not open.
func (k *keptKey) failed(v *volume, err error) error {
	if mode := k.app.options.json; mode.On() && errors.Is(err, luks2.ErrNoKey) {
		return errors.Join(err, k.app.out.JSON(mode, testView{v.place(), v.header.UUID, false, []testResult{}, errorView(err)}))
	}
	return err
}
