package cli

import (
	"slices"
	"strings"
	"testing"
)

// TestIndentedTextIsWrapped stays below itself, on all of its lines.
func TestIndentedTextIsWrapped(t *testing.T) {
	text := "  nothing is wiped unless the new keyslot opens the volume"
	want := "  nothing is wiped unless the new\n    keyslot opens the volume"
	if got := WrapMessage(0, text, 40); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := WrapMessage(0, "  a list  of columns,  which is wider than that", 40); strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
	text = "  failed     fido2 token, after 30s: no key is there"
	want = "  failed     fido2 token, after 30s: no\n             key is there"
	if got := WrapMessage(0, text, 40); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

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
