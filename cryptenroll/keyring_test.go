package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/askpass"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// TestPassphraseInTheKernelKeyring: installers put it there for systemd-cryptenroll,
// several of them, and wrong ones are no failure.
func TestPassphraseInTheKernelKeyring(t *testing.T) {
	v := luks2test.New(t)
	right := randomText() // no other test opens anything with it
	v.Enroll(t, right, luks2.Token{})
	keyring := askpass.New(askpass.Options{Cache: askpass.CacheYes})
	for _, text := range []string{"wrong " + right, right} {
		s := secret.Copy([]byte(text))
		if err := keyring.Remember(passphraseKeyring, s); err != nil {
			testenv.NotApplicable(t, "no kernel keyring: "+err.Error())
		}
		s.Wipe()
	}
	t.Cleanup(func() {
		if id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", passphraseKeyring, 0); err == nil {
			_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
		}
	})
	for _, name := range []string{"cryptenroll", "systemd-cryptenroll"} {
		cmd := alone(t, nil, "--recovery-key", v.Path)
		cmd.Args[0] = name
		if r := runCommand(t, cmd); r.status != 0 {
			t.Errorf("%s: status %d, %s", name, r.status, r.stderr)
		}
	}
	r := runCommand(t, alone(t, nil, "test", v.Path))
	if r.status != 0 || !strings.Contains(r.stdout, "opens "+v.Path+": passphrase in the kernel keyring") {
		t.Errorf("status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	other := luks2test.New(t)
	if r := runCommand(t, alone(t, nil, "test", other.Path)); r.status != 2 || strings.Contains(r.stderr, "keyring") {
		t.Errorf("a volume that none of them opens: status %d, %s", r.status, r.stderr)
	}
}
