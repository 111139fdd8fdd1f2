package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// TestPlaybook runs the example for Ansible on an image: --check changes nothing, the
// first run something, the second nothing, and what it lists opens with cryptsetup.
func TestPlaybook(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ansible-playbook", "cryptsetup")
	v, dir := luks2test.New(t), t.TempDir()
	put(t, dir, "bootstrap", luks2test.Passphrase)
	put(t, dir, "keyslots.yaml", strings.NewReplacer("DIR", dir).Replace(`version: 1
unlock: [{file: DIR/bootstrap}, {file: DIR/recovery.key}]
keyslots: [{label: recovery, type: recovery, to: {file: DIR/recovery.key}}]
absent: [{type: password}]
`))
	before := readFile(t, v.Path)
	run := func(want string, args ...string) {
		t.Helper()
		out, err := playbook(t, dir, v.Path, args...).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(want)) {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	run("changed=1 ", "--check")
	if !bytes.Equal(readFile(t, v.Path), before) {
		t.Error("--check wrote to the volume")
	}
	run("changed=1 ")
	run("changed=0 ", "--check")
	run("changed=0 ")
	testenv.Run(t, "cryptsetup", "open", "--test-passphrase", "--key-file", filepath.Join(dir, "recovery.key"), "--keyfile-size=71", v.Path)
	if v.Opens(t, luks2test.Passphrase) {
		t.Error("the bootstrap passphrase opens")
	}
	put(t, dir, "keyslots.yaml", "version: 1\nkeyslot: []\n")
	if out, err := playbook(t, dir, v.Path).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("did you mean keyslots?")) {
		t.Errorf("%v: %s", err, out)
	}
}

// playbook is the example with this test as the command.
func playbook(t *testing.T, dir, volume string, args ...string) *exec.Cmd {
	t.Helper()
	bin := filepath.Join(dir, "bin")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(bin, "cryptenroll")); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	cmd := exec.Command("ansible-playbook", append([]string{"-i", "localhost,", "-c", "local", "-e", "luksmith_become=false",
		"-e", "luksmith_spec=" + filepath.Join(dir, "keyslots.yaml"), "-e", `{"luksmith_devices": ["` + volume + `"]}`, "../docs/examples/ansible.yaml"}, args...)...)
	cmd.Env = append(os.Environ(), "LUKSMITH_TEST_COMMAND=1", "PATH="+bin+":"+os.Getenv("PATH"), "ANSIBLE_HOME="+filepath.Join(dir, "ansible"),
		"ANSIBLE_LOCAL_TEMP="+filepath.Join(dir, "local"), "ANSIBLE_REMOTE_TEMP="+filepath.Join(dir, "remote"), "LC_ALL=C.UTF-8")
	return cmd
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
