package luks2_test

import (
	"slices"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
)

// TestNewKeyslotTakesTheNumberOfTheOld: tokens and digests follow, cryptsetup opens it
// under that number, and numbers that are not those of this change are refused.
func TestNewKeyslotTakesTheNumberOfTheOld(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	d, err := luks2.Open(v.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := unlocked(t, d, "hunter2")
	add := func(tx *luks2.Tx, passphrase string) int {
		slot, err := tx.AddKeyslot(key, text(t, passphrase), luks2.MinimalKDF)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.AddToken(luks2.Token{Type: "x", Keyslots: []int{slot}}); err != nil {
			t.Fatal(err)
		}
		return slot
	}
	update(t, d, func(tx *luks2.Tx) error { add(tx, "old"); return nil })
	update(t, d, func(tx *luks2.Tx) error {
		slot := add(tx, "new")
		for _, wrong := range [][2]int{{0, 1}, {slot, 1}, {slot, 7}} { // not added; not removed; never there
			if tx.TakeNumber(wrong[0], wrong[1]) == nil {
				t.Errorf("%d takes the number %d", wrong[0], wrong[1])
			}
		}
		if err := tx.RemoveKeyslotAndTokens(1); err != nil {
			return err
		}
		return tx.TakeNumber(slot, 1)
	})
	h := header(t, d)
	if len(h.Keyslots) != 2 || len(h.Tokens) != 1 || !slices.Equal(h.Tokens[0].Keyslots, []int{1}) || !slices.Equal(h.Digests[0].Keyslots, []int{0, 1}) {
		t.Errorf("keyslots %v, tokens %v, digests %v", h.Keyslots, h.Tokens, h.Digests)
	}
	if key := unlocked(t, d, "new"); key.Slot != 1 {
		t.Errorf("the new passphrase opens keyslot %d", key.Slot)
	}
	if !v.Opens(t, "new") || v.Opens(t, "old") || !v.Opens(t, "hunter2") {
		t.Error("cryptsetup opens it with other passphrases")
	}
}
