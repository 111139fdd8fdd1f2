package combo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/argon2id"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// newStretch are the costs of a new passphrase: those of a TPM's PIN. It is never
// all that stands between a thief and the volume.
var newStretch = argon2id.Params{MemoryKiB: 64 << 10, Time: 8, Lanes: 4}

// credential names the sources of the passphrase besides the keyboard.
const credential = "combo-passphrase"

// affordable refuses what this machine has not the memory for now, before anybody
// types. The error is ErrUnsupported.
func (f *factor) affordable() error {
	if err := luks2.CheckMemory(uint64(f.stretch.MemoryKiB)); err != nil {
		return fmt.Errorf("%w: stretching the passphrase: %w", tokens.ErrUnsupported, err)
	}
	return nil
}

// typeNew has a person type the passphrase of a new factor.
func (m *made) typeNew(ctx context.Context, ui tokens.UI) error {
	m.stretch = newStretch
	if err := m.affordable(); err != nil {
		return err
	}
	typed, err := ui.Ask(ctx, tokens.Prompt{Text: "New passphrase, one of the factors", Credential: credential, New: true})
	if err != nil {
		return err
	}
	defer typed.Wipe()
	if typed.Len() == 0 {
		return errors.New("the passphrase is empty")
	}
	salt := secret.Random(saltSize)
	defer salt.Wipe()
	m.stretch.Salt = slices.Clone(salt.Bytes())
	m.secret, err = m.stretched(ctx, typed)
	return err
}

// stretched turns what was typed, which is borrowed, into the factor's secret.
func (f *factor) stretched(ctx context.Context, typed secret.Secret) (secret.Secret, error) {
	out := secret.New(keySize)
	if err := f.stretch.Key(ctx, typed, out); err != nil {
		out.Wipe()
		return secret.Secret{}, err
	}
	return out, nil
}
