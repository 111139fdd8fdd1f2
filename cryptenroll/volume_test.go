package main

import (
	"testing"

	"luksmith/luks2"
	"luksmith/tokens"
)

// TestTokensThatNoProgramNumbersAreNotTried: a header can have thousands of them, each
// of which would be loaded into the TPM to see whether it is enrolled already.
func TestTokensThatNoProgramNumbersAreNotTried(t *testing.T) {
	t.Parallel()
	h := &luks2.Header{Tokens: []luks2.Token{{ID: 0, Keyslots: []int{1}}, {ID: 1}, {ID: 31, Keyslots: []int{2}}}}
	for id := range 2500 {
		h.Tokens = append(h.Tokens, luks2.Token{ID: luks2.MaxTokens + id, Keyslots: []int{1}})
	}
	list := (&volume{header: h, slots: []tokens.Slot{{Keyslot: luks2.Keyslot{ID: 1}}, {Keyslot: luks2.Keyslot{ID: 2}}}}).forTokens().Tokens
	if len(list) != 2 || list[0].ID != 0 || list[1].ID != 31 {
		t.Errorf("%d tokens are looked at: %v", len(list), list)
	}
}
