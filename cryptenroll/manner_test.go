package main

import (
	"testing"

	"luksmith/internal/askpass"
	"luksmith/tokens"
)

// TestWhatTheNamesChange is about what no script of jobs sees: installers wait for the
// words of a question, and share passphrases by the kernel keyring.
func TestWhatTheNamesChange(t *testing.T) {
	pin := &tokens.Prompt{Text: "PIN of YubiKey 5C", Credential: "fido2-pin"}
	for name, want := range map[string]struct {
		text  string
		cache askpass.CacheMode
	}{
		"cryptenroll":         {"PIN of YubiKey 5C", askpass.CacheReadOnly},
		"systemd-cryptenroll": {"Please enter security token PIN (PIN of YubiKey 5C)", askpass.CacheYes},
	} {
		m := mannerOf(name)
		if got := m.question(pin); got != want.text || m.keyring() != want.cache {
			t.Errorf("%s: %q, keyring %d", name, got, m.keyring())
		}
	}
	if got := mannerOf("systemd-cryptenroll").question(&tokens.Prompt{Text: "PIN of the TPM", Credential: "tpm2-pin"}); got != "PIN of the TPM" {
		t.Error(got)
	}
}
