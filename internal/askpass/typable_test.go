package askpass

import (
	"strings"
	"testing"

	"luksmith/tokens"
)

// TestNewPINThatNobodyCanTypeIsRefused: it was enrolled without a word, and each time
// that somebody typed it cost a try of the device. systemd#41325.
func TestNewPINThatNobodyCanTypeIsRefused(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for text, why := range map[string]string{
		"5678\n": "ends with a line end", "5678\r\n": "ends with a line end", "5678\r": "ends with a line end", "56\n78": "control characters",
		"56\x1b78": "control characters", "\xff78": "not UTF-8", strings.Repeat("5", maxTyped+1): "longer than prompts take", "5678": "", "größer ist 5": "",
		"\ufeff5678": "nobody sees", "56\u00a078": "nobody sees", "56\u00ad78": "nobody sees", "5678\u200b": "nobody sees", "می\u200cخواهم": "",
		strings.Repeat("5", maxElsewhere+1): "cryptsetup takes", strings.Repeat("5", maxElsewhere): "",
	} {
		messages, out := recorder()
		write(t, dir, "cryptenroll.new-tpm2-pin", text, 0o600)
		write(t, dir, "cryptenroll.new-passphrase", text, 0o600)
		byCredential := New(Options{Prefix: "cryptenroll", Messages: messages})
		file := write(t, dir, "file", text+"\n", 0o600) // one line end is the file's
		byFile := New(Options{Prefix: "cryptenroll", NewPINFile: file, Messages: messages})
		for _, a := range []*Asker{byCredential, byFile} {
			got, err := ask(t, a, tokens.Prompt{Text: "PIN", Credential: "tpm2-pin", New: true})
			if refused := err != nil && strings.Contains(err.Error(), why); why == "" && got != text || why != "" && !refused {
				t.Errorf("new PIN %.20q: %q, %v", text, got, err)
			}
		}
		if out.Len() > 0 {
			t.Errorf("warned of %.20q: %s", text, out)
		}
		got, err := ask(t, byCredential, tokens.Prompt{Text: "passphrase", Credential: "passphrase", New: true})
		if err != nil || got != text || strings.Contains(out.String(), "cannot be typed at a prompt: ") != (why != "") {
			t.Errorf("new passphrase %.20q: %q, %v, warnings %q", text, got, err, out)
		}
	}
}

// TestLineEndInAPINIsSaidBeforeItCostsATry: a PIN of a credential counts with all its
// bytes, as for systemd.
func TestLineEndInAPINIsSaidBeforeItCostsATry(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	messages, out := recorder()
	write(t, dir, "cryptsetup.tpm2-pin", "5678\n", 0o600)
	got, err := ask(t, New(Options{Prefix: "cryptsetup", Messages: messages, Headless: true}), pinPrompt)
	if err != nil || got != "5678\n" || !strings.Contains(out.String(), "credential cryptsetup.tpm2-pin ends with a line end") {
		t.Errorf("%q, %v, %q", got, err, out)
	}
}
