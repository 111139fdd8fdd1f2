package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pinnedMachine is a machine whose volume opens by PCR 7 with a PIN, or the passphrase.
func pinnedMachine(t *testing.T) (m *bootMachine, volume string) {
	t.Helper()
	m = newBootMachine(t)
	volume = m.volume()
	m.install("debian-6.12.1", "first initrd")
	m.start("debian-6.12.1")
	cmd := m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=7", "--tpm2-with-pin=yes", "--compat=257", volume)
	cmd.Env = append(cmd.Env, "NEWPIN=4711")
	if r := runCommand(t, cmd); r.status != 0 {
		t.Fatalf("enrolling: %d\n%s", r.status, r.stderr)
	}
	m.put("key", []byte("hunter2"))
	return m, volume
}

// TestFollowMakesNoWeakerKeyThanAnEditedTokenHad: whoever can write the disk takes the
// PIN out of the one token, and hopes that the next call makes a key without one.
func TestFollowMakesNoWeakerKeyThanAnEditedTokenHad(t *testing.T) {
	t.Parallel()
	m, volume := pinnedMachine(t)
	path := filepath.Join(m.root, volume)
	original, followed := content(t, path), filepath.Join(m.root, "var/lib/luksmith/follow.json")
	for name, edit := range edits {
		for _, more := range []func(m map[string]json.RawMessage){func(map[string]json.RawMessage) {}, withoutMAC} {
			for _, options := range [][]string{nil, {"--tpm2-pcrs=7"}} {
				if err := errors.Join(os.WriteFile(path, original, 0o600), os.RemoveAll(followed)); err != nil {
					t.Fatal(err)
				}
				editToken(t, path, func(m map[string]json.RawMessage) { edit(m); more(m) })
				before := content(t, path)
				r := m.follow(append(options, "--unlock-key-file=/key", volume)...)
				if r.status == 0 || !bytes.Equal(before, content(t, path)) {
					t.Errorf("%s, %q: exit status %d, header changed: %t\n%s%s", name, options, r.status, !bytes.Equal(before, content(t, path)), r.stdout, r.stderr)
				}
			}
		}
	}
	if err := errors.Join(os.WriteFile(path, original, 0o600), os.RemoveAll(followed)); err != nil {
		t.Fatal(err)
	}
	if r := m.follow("--unlock-key-file=/key", volume); r.status != 9 || !strings.Contains(r.stderr, "--tpm2-with-pin=no") {
		t.Errorf("as it was: %d\n%s", r.status, r.stderr)
	}
	if r := m.follow("--unlock-key-file=/key", "--tpm2-pcrs=7", "--tpm2-with-pin=no", volume); r.status != 0 {
		t.Errorf("named: %d\n%s", r.status, r.stderr)
	}
}
