package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/tokens/all"
	"luksmith/tokens/tpm2/bootrecord"
)

const thisBoot = "01234567-89ab-4cde-8f01-23456789abcd"

// bootedMachine is a root folder with the files of a boot.
func bootedMachine(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	put(t, root, "proc/sys/kernel/random/boot_id", thisBoot+"\n")
	return root
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ensureOn runs ensure on a machine below root and returns what it prints.
func ensureOn(t *testing.T, root, spec, volume string) (string, error) {
	t.Helper()
	put(t, root, "spec", strings.ReplaceAll(spec, "DIR", root))
	a := newApp("cryptenroll", all.New)
	a.root, a.environment = root, askpass.TakeEnvironment()
	defer a.environment.Close()
	var out bytes.Buffer
	a.out = cli.StreamTo(&out)
	err := (&ensureRun{ensureOptions: &ensureOptions{file: filepath.Join(root, "spec")}, app: a}).run(t.Context(), []string{volume})
	return out.String(), err
}

// TestKeptUntilABootUsedTheNewKey: what a boot opened with counts, not what was made
// since under the same number.
func TestKeptUntilABootUsedTheNewKey(t *testing.T) {
	t.Parallel()
	v, root := luks2test.New(t), bootedMachine(t)
	put(t, root, "old", luks2test.Passphrase)
	put(t, root, "new", "first")
	const spec = `version: 1
unlock: [{file: DIR/old}, {file: DIR/new}]
keyslots: [{label: admin, type: password, from: {file: DIR/new}, pbkdf: pbkdf2, pbkdf-force-iterations: 1000, keep-old: boot}]
absent: [{type: password, keep-until: boot}]
`
	step := func(what, want string, opens ...string) {
		t.Helper()
		out, err := ensureOn(t, root, spec, v.Path)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%s: %v: %s", what, err, out)
		}
		for _, text := range []string{luks2test.Passphrase, "first", "second"} {
			if wanted := strings.Contains(" "+strings.Join(opens, " ")+" ", " "+text+" "); v.Opens(t, text) != wanted {
				t.Fatalf("%s: %q opens: %t", what, text, !wanted)
			}
		}
	}
	boot := func(slot int, label string) {
		t.Helper()
		record := &bootrecord.Boot{ID: thisBoot, Time: time.Now().UTC()}
		record.AddUnlock(bootrecord.Unlock{Time: time.Now().UTC(), Volume: v.UUID, Opened: &bootrecord.Way{By: "passphrase", Keyslot: &slot, Label: label}})
		if err := bootrecord.State(root).Write(record); err != nil {
			t.Fatal(err)
		}
	}
	step("made", `kept: keyslot 0 (password); until the volume was opened in a boot`, luks2test.Passphrase, "first")
	boot(0, "")
	step("a boot with the old key", "nothing to do", luks2test.Passphrase, "first")
	boot(1, "another")
	step("a boot with what had the number", "nothing to do", luks2test.Passphrase, "first")
	boot(1, "admin")
	step("a boot with the new key", "wiped: keyslot 0 (password)", "first")

	put(t, root, "old", "first")
	put(t, root, "new", "second")
	boot(0, "")
	step("replaced", `replaced: keyslot 0 (password, "admin")`, "first", "second")
	step("again", `kept: keyslot 1 (password, "admin (replaced)"); until the volume was opened in a boot`, "first", "second")
	boot(0, "admin")
	step("a boot with the one that replaced it", `wiped: keyslot 1 (password, "admin (replaced)"); it was replaced`, "second")
}

// TestRequiredSecureBoot by the variable of the firmware.
func TestRequiredSecureBoot(t *testing.T) {
	t.Parallel()
	v, root := luks2test.New(t), bootedMachine(t)
	put(t, root, "old", luks2test.Passphrase)
	spec := func(where string) string {
		return strings.ReplaceAll(`version: 1
unlock: [{file: DIR/old}]
`+where+`keyslots:
 - {label: a, type: recovery, to: {file: DIR/key}ENTRY}
`, "ENTRY", map[bool]string{true: ", require: {needs: [secure-boot], else: skip}"}[where == ""])
	}
	const variable = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	off := "\x06\x00\x00\x00\x00"
	put(t, root, variable, off)
	out, err := ensureOn(t, root, spec("require: {needs: [secure-boot]}\n"), v.Path)
	if cli.ExitStatus(err) != cli.ExitRefused || !strings.Contains(err.Error(), "spec:3: require: refused: Secure Boot is off") {
		t.Errorf("%v: %s", err, out)
	}
	for _, s := range []string{spec("require: {needs: [secure-boot], else: skip}\n"), spec("")} {
		if out, err := ensureOn(t, root, s, v.Path); err != nil || !strings.Contains(out, "nothing to do") {
			t.Errorf("%v: %s", err, out)
		}
	}
	put(t, root, variable, "\x06\x00\x00\x00\x01")
	if out, err := ensureOn(t, root, spec(""), v.Path); err != nil || !strings.Contains(out, `made: keyslot 1 (recovery, "a")`) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestKeyThatSomebodyElseKnowsIsNotEnrolled: at the place of a new recovery key lies
// one already.
func TestKeyThatSomebodyElseKnowsIsNotEnrolled(t *testing.T) {
	t.Parallel()
	const spec = "version: 1\nunlock: [{file: DIR/old}]\nkeyslots: [{label: a, type: recovery, to: {file: DIR/key}}]\n"
	const key = "bcdefghi-jklnrtuv-bcdefghi-jklnrtuv-cbdefghi-jklnrtuv-bcdefghi-jklnrtuv\n"
	for name, lay := range map[string]func(path string) error{
		"readable": func(path string) error { return os.WriteFile(path, []byte(key), 0o644) },
		"symlink": func(path string) error {
			return os.Symlink(filepath.Join(filepath.Dir(path), "elsewhere"), path)
		},
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		v, root := luks2test.New(t), bootedMachine(t)
		put(t, root, "old", luks2test.Passphrase)
		put(t, root, "elsewhere", key)
		if err := lay(filepath.Join(root, "key")); err != nil {
			t.Fatal(err)
		}
		_, err := ensureOn(t, root, spec, v.Path)
		if err == nil || !strings.Contains(err.Error(), "others may know the key in it") {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(readHeader(t, v).Keyslots); n != 1 {
			t.Errorf("%s: %d keyslots", name, n)
		}
	}
}
