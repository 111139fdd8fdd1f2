package cli

import (
	"slices"
	"testing"
)

// TestCommandsAreNotBroken: what is pasted stays on one line, prose does not.
func TestCommandsAreNotBroken(t *testing.T) {
	for text, want := range map[string][]string{
		"there is no recovery key yet: cryptenroll --recovery-key /dev/disk/by-id/x": {"there is no", "recovery key", "yet:", "cryptenroll --recovery-key /dev/disk/by-id/x"},
		"load it (`modprobe dm_mod dm_crypt`), then try":                             {"load it", "(`modprobe dm_mod dm_crypt`),", "then try"},
		"sudo cryptenroll label v.img 0 x":                                           {"sudo cryptenroll label v.img 0 x"},
		"see what cryptenroll says: nothing":                                         {"see what", "cryptenroll", "says:", "nothing"},
		"an odd ` quote":                                                             {"an odd `", "quote"},
	} {
		if got := wrapWords(pastedWords(text), 12); !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
}
