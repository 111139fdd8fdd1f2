package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// systemSpec lists a passphrase, what crypttab shall have, and what makes the initrd.
const systemSpec = `version: 1
unlock: [{file: DIR/old}, {file: DIR/new}]
keyslots: [{label: admin, type: password, from: {file: DIR/new}, pbkdf: pbkdf2, pbkdf-force-iterations: 1000}]
absent: [{type: password}]
crypttab: {options: [discard, "tpm2-device=auto"]}
initrd: [DIR/make, initrd]
`

// systemCase is a machine below root whose crypttab has a line for the volume.
func systemCase(t *testing.T) (root string, v *luks2test.Volume) {
	t.Helper()
	v, root = luks2test.New(t), t.TempDir()
	put(t, root, "old", luks2test.Passphrase)
	put(t, root, "new", "new")
	put(t, root, "etc/crypttab", "# ours\ndata UUID="+v.UUID+" none luks # the disk\n")
	put(t, root, "make", "#!/bin/sh\n[ ! -e ${0%/*}/broken ] || exit 7\necho $1 >>${0%/*}/made\n")
	if err := os.Chmod(filepath.Join(root, "make"), 0o700); err != nil {
		t.Fatal(err)
	}
	return root, v
}

// TestSystemFollowsTheKeyslots: the line and the initrd are brought before what is not
// wanted goes, and not again.
func TestSystemFollowsTheKeyslots(t *testing.T) {
	t.Parallel()
	root, v := systemCase(t)
	for run, want := range []string{"run: " + root + "/make initrd", "nothing to do", "nothing to do"} {
		out, err := ensureOn(t, root, systemSpec, v.Path)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("run %d: %v: %s", run, err, out)
		}
	}
	if got := string(readFile(t, filepath.Join(root, "made"))); got != "initrd\n" {
		t.Errorf("made %q", got)
	}
	want := "# ours\ndata UUID=" + v.UUID + " none luks,discard,tpm2-device=auto # the disk\n"
	if got := string(readFile(t, filepath.Join(root, "etc/crypttab"))); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if v.Opens(t, luks2test.Passphrase) {
		t.Error("what is not wanted opens")
	}
}

// TestInitrdThatFailedIsMadeByTheNextRun, and until then nothing is wiped.
func TestInitrdThatFailedIsMadeByTheNextRun(t *testing.T) {
	t.Parallel()
	root, v := systemCase(t)
	put(t, root, "broken", "")
	for range 2 {
		out, err := ensureOn(t, root, systemSpec, v.Path)
		if err == nil || !strings.Contains(err.Error(), "/make initrd: exit status 7") {
			t.Errorf("%v: %s", err, out)
		}
		if !v.Opens(t, luks2test.Passphrase) || !v.Opens(t, "new") {
			t.Error("wiped although the initrd is not made")
		}
	}
	if err := os.Remove(filepath.Join(root, "broken")); err != nil {
		t.Fatal(err)
	}
	if out, err := ensureOn(t, root, systemSpec, v.Path); err != nil || !strings.Contains(out, "/make initrd") {
		t.Errorf("%v: %s", err, out)
	}
	if got := string(readFile(t, filepath.Join(root, "made"))); got != "initrd\n" || v.Opens(t, luks2test.Passphrase) {
		t.Errorf("made %q", got)
	}
}

// TestSystemThatCannotFollow is found before anything is written.
func TestSystemThatCannotFollow(t *testing.T) {
	t.Parallel()
	root, v := systemCase(t)
	before := string(readFile(t, v.Path))
	for text, want := range map[string]string{
		strings.Replace(systemSpec, "DIR/make, initrd", "/nosuch/make", 1): "/nosuch/make",
		strings.Replace(systemSpec, "[DIR/make, initrd]", "auto", 1):       "no program that makes initrds is known here",
		strings.Replace(systemSpec, "discard", "discrad", 1):               "discrad",
	} {
		if out, err := ensureOn(t, root, text, v.Path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %s", err, out)
		}
	}
	if string(readFile(t, v.Path)) != before || !strings.HasSuffix(string(readFile(t, filepath.Join(root, "etc/crypttab"))), " luks # the disk\n") {
		t.Error("something was written")
	}
}

// TestUnlockByTheKernelKeyring: an installer left the passphrase there.
func TestUnlockByTheKernelKeyring(t *testing.T) {
	t.Parallel()
	v, root := luks2test.New(t), t.TempDir()
	put(t, root, "new", "new")
	name := "ensure-" + randomText()
	text := strings.Replace(strings.Split(systemSpec, "absent")[0], "{file: DIR/old}, {file: DIR/new}", "keyring: "+name, 1)
	if out, err := ensureOn(t, root, text, v.Path); err == nil || !strings.Contains(err.Error(), "unlock[0]: no key \""+name+"\" in the kernel keyring opens it") {
		t.Errorf("%v: %s", err, out)
	}
	id, err := unix.AddKey("user", name, []byte(luks2test.Passphrase), unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		testenv.NotApplicable(t, "no kernel keyring: "+err.Error())
	}
	t.Cleanup(func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0) })
	if out, err := ensureOn(t, root, text, v.Path); err != nil || !v.Opens(t, "new") {
		t.Errorf("%v: %s", err, out)
	}
}
