package luks2_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
)

func TestTheFunctionRunsAgainWhenAnotherWriterWasFirst(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	runs := 0
	update(t, v.Device, func(tx *luks2.Tx) error {
		if runs++; runs == 1 {
			v.Enroll(t, "from outside", luks2.Token{Type: "systemd-recovery"})
		}
		id, err := tx.AddToken(luks2.Token{Type: "mine"})
		if want := runs - 1; err == nil && id != want {
			t.Errorf("run %d: token %d, want %d", runs, id, want)
		}
		return err
	})
	if h := header(t, v.Device); runs != 2 || len(h.Tokens) != 2 || !v.Opens(t, "from outside") {
		t.Errorf("%d runs, %+v", runs, h.Tokens)
	}
}

func TestAnotherVolumeInItsPlaceIsNotChanged(t *testing.T) {
	t.Parallel()
	v, other := luks2test.New(t), luks2test.New(t)
	key := unlocked(t, v.Device, v.Passphrase)
	if err := os.Rename(other.Path, v.Path); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, v.Path)
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { tx.Rewrite(); return nil })
	if !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("through the old Device: %v", err)
	}
	fresh, err := luks2.Open(v.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = fresh.Update(t.Context(), func(tx *luks2.Tx) error {
		_, err := tx.AddKeyslot(key, text(t, "x"), luks2.MinimalKDF)
		return err
	})
	if !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("with the other volume's key: %v", err)
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("the file changed")
	}
}

func TestRefusalsToWrite(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	d, err := luks2.Open(v.Path, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(tx *luks2.Tx) error { tx.Rewrite(); return nil }
	if err := d.Update(t.Context(), rewrite); !errors.Is(err, luks2.ErrReadOnly) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Device.Update(ctx, rewrite); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for name, fn := range map[string]func(*luks2.Tx) error{
		"keyslot":  func(tx *luks2.Tx) error { return tx.RemoveKeyslot(7) },
		"priority": func(tx *luks2.Tx) error { return tx.SetPriority(7, luks2.PriorityPrefer) },
		"named": func(tx *luks2.Tx) error {
			_, err := tx.AddToken(luks2.Token{Type: "x", Keyslots: []int{7}})
			return err
		},
	} {
		if err := v.Device.Update(t.Context(), fn); !errors.Is(err, luks2.ErrNoKeyslot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, fn := range map[string]func(*luks2.Tx) error{
		"remove":  func(tx *luks2.Tx) error { return tx.RemoveToken(3) },
		"replace": func(tx *luks2.Tx) error { return tx.ReplaceToken(3, luks2.Token{Type: "x"}) },
	} {
		if err := v.Device.Update(t.Context(), fn); !errors.Is(err, luks2.ErrNoToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, raw := range []string{`[]`, `{"a":}`, `{} {}`, `5`} {
		err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
			_, err := tx.AddToken(luks2.Token{Type: "x", Raw: json.RawMessage(raw)})
			return err
		})
		if err == nil {
			t.Errorf("token %s is taken", raw)
		}
	}
}
