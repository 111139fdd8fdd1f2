package crypttab

import (
	"strings"
	"testing"
)

// TestKernelLineSaysWhatItTakesDifferently: words that replace others, and a key file that
// looks as if it had a device.
func TestKernelLineSaysWhatItTakesDifferently(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"luks.options=discard luks.options=tries=1":   "it replaces luks.options=discard, which stands before it",
		"luks.options=discard luks.options=discard":   "",
		"luks.key=/k:LABEL=stick":                     "without a UUID all of it is a path; for a file on another device: luks.key=UUID=/k:LABEL=stick",
		"luks.key=/k:/dev/sdb1":                       "luks.key=UUID=/k:/dev/sdb1",
		"luks.key=/k":                                 "",
		"luks.key=/k:a":                               "",
		"luks.key=" + kernelTestUUID + "=/k:LABEL=st": "",
	} {
		k := ParseKernelLine(line, false)
		text := ""
		for _, w := range k.Warnings {
			text += w.Error()
		}
		if (text == "") != (want == "") || !strings.Contains(text, want) {
			t.Errorf("%s: %q", line, text)
		}
	}
}

const kernelTestUUID = "11111111-2222-4333-8444-555555555555"
