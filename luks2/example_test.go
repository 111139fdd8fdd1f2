package luks2_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// exampleVolume makes an image with a volume that the passphrase "hunter2" opens.
func exampleVolume() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "luks2-example")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "volume.img")
	passphrase := secret.Copy([]byte("hunter2"))
	defer passphrase.Wipe()
	_, err = luks2.Format(context.Background(), path, &luks2.FormatOptions{
		Passphrase: passphrase, KDF: luks2.KDF{Type: luks2.KDFPBKDF2, Hash: "sha256", Iterations: 1000}, CreateSize: 32 << 20, Label: "backup",
	})
	if err != nil {
		log.Fatal(err)
	}
	return path, func() { _ = os.RemoveAll(dir) }
}

// List the keyslots of a volume. Text of a header is untrusted: %q keeps control
// characters from the terminal.
func ExampleDevice_Header() {
	path, remove := exampleVolume()
	defer remove()

	d, err := luks2.Open(path, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	h, err := d.Header(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q has %d keyslots\n", h.Label, len(h.Keyslots))
	for _, k := range h.Keyslots {
		fmt.Printf("%d: %s, area in %q\n", k.ID, k.KDF.Type, k.Area.Encryption)
		if err := h.KeyslotObstacle(k.ID); err != nil {
			fmt.Println("cannot be opened here:", err)
		}
	}
	// Output:
	// "backup" has 1 keyslots
	// 0: pbkdf2, area in "aes-xts-plain64"
}

// Open a volume with a passphrase: the volume key says which keyslot it came from.
func ExampleDevice_OpenKeyslot() {
	path, remove := exampleVolume()
	defer remove()

	d, err := luks2.Open(path, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, typed := range []string{"hunter1", "hunter2"} {
		passphrase := secret.Copy([]byte(typed))
		key, err := d.OpenKeyslot(context.Background(), luks2.AnySlot, passphrase)
		passphrase.Wipe()
		switch {
		case errors.Is(err, luks2.ErrNoKey):
			fmt.Println("try again")
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Printf("keyslot %d, key of %d bits\n", key.Slot, key.Key.Len()*8)
			key.Wipe()
		}
	}
	// Output:
	// try again
	// keyslot 0, key of 512 bits
}

// Add a keyslot for a second passphrase. The function may run twice, if another
// program changed the header meanwhile; the key derivation does not.
func ExampleDevice_Update() {
	path, remove := exampleVolume()
	defer remove()
	ctx := context.Background()

	d, err := luks2.Open(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	old, added := secret.Copy([]byte("hunter2")), secret.Copy([]byte("correct horse"))
	defer secret.WipeAll([]secret.Secret{old, added})
	key, err := d.OpenKeyslot(ctx, luks2.AnySlot, old)
	if err != nil {
		log.Fatal(err)
	}
	defer key.Wipe()
	var slot int
	err = d.Update(ctx, func(tx *luks2.Tx) (err error) {
		slot, err = tx.AddKeyslot(key, added, luks2.KDF{Type: luks2.KDFArgon2id, Time: 4, MemoryKiB: 64, Parallel: 1})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	again, err := d.OpenKeyslot(ctx, slot, added)
	if err != nil {
		log.Fatal(err)
	}
	defer again.Wipe()
	fmt.Println("keyslot", slot, "has the same key:", again.Key.Equal(key.Key))
	// Output:
	// keyslot 1 has the same key: true
}

// Ask whether an enrolment would fit, before anybody is asked for anything.
func ExampleDevice_Rehearse() {
	path, remove := exampleVolume()
	defer remove()

	d, err := luks2.Open(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = d.Rehearse(context.Background(), func(tx *luks2.Tx) error {
		for range luks2.MaxKeyslots { // one is taken
			if _, err := tx.AddKeyslot(nil, secret.Secret{}, luks2.MinimalKDF); err != nil {
				return err
			}
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// no space in the header: all 32 keyslots are in use
}
