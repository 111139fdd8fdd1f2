package tokens_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// scripted answers each question with the same PIN, as a person would.
type scripted struct{ pin string }

func (s scripted) Ask(_ context.Context, p tokens.Prompt) (secret.Secret, error) {
	fmt.Println("asked for:", p.Text)
	return secret.Copy([]byte(s.pin)), nil
}

func (scripted) Show(text string) (done func()) {
	fmt.Println("shown:", text)
	return func() {}
}

func (scripted) Note(text string) { fmt.Println("note:", text) }

// exampleVolume makes an image with a volume that the passphrase "hunter2" opens, and
// opens it.
func exampleVolume(ctx context.Context) (d *luks2.Device, key *luks2.VolumeKey, remove func()) {
	dir, err := os.MkdirTemp("", "tokens-example")
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "volume.img")
	passphrase := secret.Copy([]byte("hunter2"))
	defer passphrase.Wipe()
	_, err = luks2.Format(ctx, path, &luks2.FormatOptions{
		Passphrase: passphrase, KDF: luks2.KDF{Type: luks2.KDFPBKDF2, Hash: "sha256", Iterations: 1000}, CreateSize: 32 << 20})
	if err != nil {
		log.Fatal(err)
	}
	if d, err = luks2.Open(path, nil); err != nil {
		log.Fatal(err)
	}
	if key, err = d.OpenKeyslot(ctx, luks2.AnySlot, passphrase); err != nil {
		log.Fatal(err)
	}
	return d, key, func() { key.Wipe(); _ = os.RemoveAll(dir) }
}

// Enrol a security device and unlock with it. The handler talks to the device and to
// the person and never sees the disk; keyslot and token are written in one update.
// Any type of tokens/all takes the place of the toy.
func Example() {
	ctx := context.Background()
	d, key, remove := exampleVolume(ctx)
	defer remove()
	types := tokens.Set{&tokentest.Toy{Device: "present"}}
	ui := scripted{"01234567"}

	made, err := types[0].(tokens.Enroller).Enroll(ctx, &tokens.EnrollRequest{Label: "home", Compat: 257}, ui)
	if err != nil {
		log.Fatal(err)
	}
	defer made.Passphrase.Wipe()
	err = d.Update(ctx, func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(key, made.Passphrase, made.KDF)
		if err != nil {
			return err
		}
		written, _ := tx.Header().Keyslot(slot)
		raw, err := types.Authenticate(made.Token, written, key) // if the type has conditions
		if err != nil {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Keyslots: []int{slot}, Raw: raw})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	h, err := d.Header(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range tokens.Slots(types, h) {
		fmt.Println(s.String())
	}
	got, err := types[0].(tokens.Unlocker).Unlock(ctx, &tokens.UnlockRequest{Tokens: h.Tokens,
		Opens: func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
			vk, err := d.OpenKeyslot(ctx, t.Keyslots[0], passphrase)
			if err != nil {
				return tokens.ErrWrongKey
			}
			vk.Wipe()
			return nil
		}}, ui)
	if err != nil {
		log.Fatal(err)
	}
	defer got.Passphrase.Wipe()
	fmt.Println("token", got.Token.ID, "opens the volume")
	// Output:
	// shown: thinking
	// asked for: PIN of the toy
	// keyslot 0 (password)
	// keyslot 1 (toy, "home")
	// shown: thinking
	// asked for: PIN of the toy
	// token 0 opens the volume
}
