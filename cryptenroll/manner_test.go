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
	m := mannerOf("systemd-cryptenroll")
	for want, p := range map[string]tokens.Prompt{
		"Please enter TPM2 PIN (PIN of the TPM)": {Text: "PIN of the TPM", Credential: "tpm2-pin"},
		"Please enter TPM2 PIN":                  {Text: "New PIN of the TPM", Credential: "tpm2-pin", New: true},
		"PIN of desk":                            {Text: "PIN of desk", Credential: "pkcs11-pin"},
	} {
		if got := m.question(&p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for kind, want := range map[string]string{"tpm2": "No suitable TPM2 devices found.", "fido2": "No FIDO2 devices found.", "pkcs11": "No suitable PKCS#11 tokens found.", "toy": "none"} {
		if got := m.noDevices(kind, "none"); got != want || mannerOf("cryptenroll").noDevices(kind, "none") != "none" {
			t.Errorf("%s: %q", kind, got)
		}
	}
}
