package main

import (
	"strings"
	"testing"

	"luksmith/tokens/all"
)

// TestOnlyTheVerbsOfACallAreMade: making all of them takes longer than listing a
// volume.
func TestOnlyTheVerbsOfACallAreMade(t *testing.T) {
	for words, want := range map[string]int{
		"": 0, "/dev/sda2": 0, "image.luks": 0, "--version": 0, "--recovery-key --unlock-key-file=key /dev/sda2": 0, "--wipe-slot=1 image.luks": 0,
		"list /dev/sda2": 1, "--json=short list image.luks": 1, "label image.luks 1 test": 2,
		"--help": len(verbTable), "-h": len(verbTable), "help": len(verbTable), "--help=true": len(verbTable), "/dev/sda2 --help": len(verbTable),
		"completion bash": len(verbTable), "__complete ": len(verbTable),
	} {
		if got := newApp("cryptenroll", all.New).verbs(strings.Fields(words)); len(got) != want {
			t.Errorf("%q: %d verbs, not %d", words, len(got), want)
		}
	}
}
