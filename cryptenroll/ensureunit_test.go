package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

const units = "../internal/packages/ensure/"

// unitVolume is a volume and the spec of an installer, with the bootstrap key beside it.
func unitVolume(t *testing.T) (v *luks2test.Volume, dir, spec string) {
	t.Helper()
	v, dir = luks2test.New(t), t.TempDir()
	put(t, dir, "bootstrap", luks2test.Passphrase)
	put(t, dir, "ensure.yaml", strings.NewReplacer("DIR", dir, "VOLUME", v.Path).Replace(`version: 1
devices: [VOLUME]
unlock: [{file: DIR/bootstrap}, {file: DIR/recovery.key}]
keyslots: [{label: recovery, type: recovery, to: {file: DIR/recovery.key}}]
absent: [{type: password}]
`))
	return v, dir, filepath.Join(dir, "ensure.yaml")
}

// TestServiceDestroysTheBootstrapKeyslot runs the command line of the systemd unit.
func TestServiceDestroysTheBootstrapKeyslot(t *testing.T) {
	t.Parallel()
	v, dir, spec := unitVolume(t)
	text := string(readFile(t, units+"luksmith-ensure.service"))
	_, line, ok := strings.Cut(text, "\nExecStart=/usr/bin/cryptenroll ")
	line, _, _ = strings.Cut(line, "\n")
	if !ok || !strings.Contains(text, "ConditionPathExists=/etc/luksmith/ensure.yaml\n") {
		t.Fatalf("%s", text)
	}
	words := strings.Fields(strings.ReplaceAll(line, "/etc/luksmith/ensure.yaml", spec))
	for run := range 2 { // at every boot
		if out, err := commandLine(t, nil, words...).CombinedOutput(); err != nil {
			t.Fatalf("run %d: %v: %s", run, err, out)
		}
	}
	if v.Opens(t, luks2test.Passphrase) || !v.Opens(t, strings.TrimSpace(string(readFile(t, filepath.Join(dir, "recovery.key"))))) {
		t.Error("the bootstrap passphrase opens, or the recovery key does not")
	}
}

func TestServiceIsAUnit(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "systemd-analyze")
	dir := t.TempDir()
	put(t, dir, "luksmith-ensure.service", strings.ReplaceAll(string(readFile(t, units+"luksmith-ensure.service")), "/usr/bin/cryptenroll", "/bin/true"))
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "luksmith-ensure.service")).CombinedOutput()
	if strings.Contains(string(out), "luksmith-ensure.service") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestOpenRCScript runs the script as openrc-run does, with its words as functions.
func TestOpenRCScript(t *testing.T) {
	t.Parallel()
	v, dir, spec := unitVolume(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(dir, "cryptenroll")); err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("/usr/bin/cryptenroll", filepath.Join(dir, "cryptenroll"), "spec=/etc/luksmith/ensure.yaml", "spec="+spec).
		Replace(string(readFile(t, units+"luksmith-ensure.openrc")))
	const words = "need() { :; }; after() { :; }; keyword() { :; }; ebegin() { echo \"$*\"; }; eend() { [ $1 = 0 ] || echo \"$2\"; return $1; }\n"
	start := func() (string, error) {
		cmd := exec.Command("sh", "-euc", words+script+"\ndepend\nset +e\nstart")
		cmd.Env = append(os.Environ(), "LUKSMITH_TEST_COMMAND=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := start(); err != nil || !strings.Contains(out, "wiped: keyslot 0 (password)") || v.Opens(t, luks2test.Passphrase) {
		t.Errorf("%v: %s", err, out)
	}
	put(t, dir, "ensure.yaml", "version: 2")
	if out, err := start(); err == nil || !strings.Contains(out, "Not all keyslots are as listed") {
		t.Errorf("%v: %s", err, out)
	}
	if err := os.Remove(spec); err != nil {
		t.Fatal(err)
	}
	if out, err := start(); err != nil || out != "" {
		t.Errorf("%v: %s", err, out)
	}
}
