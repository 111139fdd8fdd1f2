package luks2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
)

func TestSpaceIsForeseen(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	before := readFile(t, v.Path)
	big := func(n int) luks2.Token {
		return luks2.Token{Type: "big", Raw: json.RawMessage(fmt.Sprintf(`{"x":%q}`, strings.Repeat("y", n)))}
	}
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		if _, err := tx.AddToken(big(5000)); err != nil {
			return err
		}
		_, err := tx.AddToken(big(7000))
		return err
	})
	var space *luks2.SpaceError
	if !errors.As(err, &space) || !errors.Is(err, luks2.ErrNoSpace) || space.What != "JSON area" || space.Have != 12287 {
		t.Fatalf("got %v", err)
	}
	if len(space.Tokens) != 2 || space.Tokens[0].Bytes < 7000 || space.Tokens[1].Type != "big" {
		t.Errorf("who takes the space: %+v", space.Tokens)
	}
	if !strings.HasSuffix(space.Hint(), "; see what there is: cryptenroll list DEVICE") {
		t.Errorf("hint %q", space.Hint())
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("the file changed")
	}
	// To the last byte.
	used := int(header(t, v.Device).Space.JSONUsed)
	frame := len(`"0":{"x":"","type":"big","keyslots":[]}`)
	update(t, v.Device, func(tx *luks2.Tx) error {
		if _, err := tx.AddToken(big(12287 - used - frame + 1)); err == nil {
			t.Error("one byte too much fits")
		}
		_, err := tx.AddToken(big(12287 - used - frame))
		return err
	})
	if h := header(t, v.Device); h.Space.JSONUsed != h.Space.JSONTotal {
		t.Errorf("space %+v", h.Space)
	}
}

func TestAllNumbersTaken(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.HeaderSize = 64 << 10 }))
	key, passphrase := unlocked(t, v.Device, v.Passphrase), text(t, "x")
	update(t, v.Device, func(tx *luks2.Tx) error {
		for i := range 31 {
			if slot, err := tx.AddKeyslot(key, passphrase, luks2.MinimalKDF); err != nil || slot != i+1 {
				return fmt.Errorf("slot %d: %w", slot, err)
			}
		}
		for i := range 32 {
			if id, err := tx.AddToken(luks2.Token{Type: "x"}); err != nil || id != i {
				return fmt.Errorf("token %d: %w", id, err)
			}
		}
		_, err := tx.AddKeyslot(key, passphrase, luks2.MinimalKDF)
		if !errors.Is(err, luks2.ErrNoSpace) {
			t.Errorf("33rd keyslot: %v", err)
		}
		if _, err = tx.AddToken(luks2.Token{Type: "x"}); !errors.Is(err, luks2.ErrNoSpace) {
			t.Errorf("33rd token: %v", err)
		}
		return nil
	})
	if h := header(t, v.Device); len(h.Keyslots) != 32 || len(h.Tokens) != 32 {
		t.Errorf("%d keyslots, %d tokens", len(h.Keyslots), len(h.Tokens))
	}
}

func TestKeyAreasAreReusedWithoutOverlap(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.KeyslotsSize = 3 * 258048 }))
	v.Enroll(t, "one", luks2.Token{})
	v.Enroll(t, "two", luks2.Token{})
	key := unlocked(t, v.Device, v.Passphrase)
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		_, err := tx.AddKeyslot(key, text(t, "three"), luks2.MinimalKDF)
		return err
	})
	var space *luks2.SpaceError
	if !errors.As(err, &space) || space.What != "keyslots area" || space.Need != 258048 || space.Have != 0 {
		t.Fatalf("got %v", err)
	}
	update(t, v.Device, func(tx *luks2.Tx) error { return tx.RemoveKeyslot(1) })
	if h := header(t, v.Device); h.Space.AreasFree != 258048 {
		t.Errorf("free: %d", h.Space.AreasFree)
	}
	if slot := v.Enroll(t, "three", luks2.Token{}); slot != 1 {
		t.Errorf("slot %d", slot)
	}
	for _, s := range []string{v.Passphrase, "two", "three"} {
		if !v.Opens(t, s) {
			t.Errorf("%q does not open", s)
		}
	}
}
