package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

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

// TestNothingIsMadeForCompletion where nobody asks for it: cobra's command for it, with
// one for each shell, was a fiftieth of a list.
func TestNothingIsMadeForCompletion(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]bool{"list": false, "--help": true, "completion": true, "__complete": true} {
		root := newApp("cryptenroll", all.New).rootCommand([]string{word})
		root.InitDefaultCompletionCmd()
		if made := slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == "completion" }); made != want {
			t.Errorf("%s: made: %v", word, made)
		}
	}
}

// TestOptionsAreMadeWhenACallHasThem, and all of them where it asks what there are.
func TestOptionsAreMadeWhenACallHasThem(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]bool{
		"/dev/sda3": false, "--version": false, "--json=short /dev/sda3": false, "--header /h --no-pager /dev/sda3": false,
		"": true, "help": true, "--help": true, "-h": true, "/dev/sda3 --help": true, "completion bash": true, "__complete --tp": true, "__complete ": true,
		"--tpm2-device=auto /dev/sda3": true, "--version --wipe-slot=1": true, "/dev/sda3 --label a": true, "--unknown": true, "-x": true, "-- /dev/sda3": true,
	} {
		root := newApp("cryptenroll", all.New).rootCommand(strings.Fields(words))
		if made := root.Flags().Lookup("tpm2-device") != nil; made != want || root.Flags().Lookup("json") == nil {
			t.Errorf("%q: made: %v", words, made)
		}
	}
}
