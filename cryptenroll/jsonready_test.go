package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// succeeds runs a call whose document has at least these members, and no error.
func succeeds(t *testing.T, cmd *exec.Cmd, members []string) {
	t.Helper()
	r := runCommand(t, cmd)
	var document map[string]json.RawMessage
	if err := json.Unmarshal([]byte(r.stdout), &document); err != nil || r.status != 0 || document["error"] != nil {
		t.Fatalf("%q: status %d, %v\n%s%s", cmd.Args, r.status, err, r.stdout, r.stderr)
	}
	for _, m := range members {
		if document[m] == nil {
			t.Errorf("%q: no member %q in %s", cmd.Args, m, r.stdout)
		}
	}
}

// named puts what there is into the words of a call.
func named(words []string, pairs ...string) []string {
	r, list := strings.NewReplacer(pairs...), make([]string, len(words))
	for i, w := range words {
		list[i] = r.Replace(w)
	}
	return list
}

// withChip has a keyslot of a TPM with a signed policy, and the file of signatures.
func withChip(t *testing.T, words []string) *exec.Cmd {
	testenv.Need(t, "swtpm")
	v, chip, file := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{}), filepath.Join(t.TempDir(), "signatures")
	if err := (&devices{t: t}).sign(file, 11, [32]byte{}); err != nil {
		t.Fatal(err)
	}
	must(t, "--tpm2-device="+chip.Device(), "--tpm2-public-key="+file+".pem", "--tpm2-signature="+file, "--label=laptop", v.Path)
	return alone(t, []string{"PASSWORD=hunter2"}, named(words, "TPM", chip.Device(), "SIGNATURES", file, "VOLUME", v.Path)...)
}

// withRecoveryKey has a recovery key, and somebody who keeps the next one.
func withRecoveryKey(t *testing.T, words []string) *exec.Cmd {
	v := luks2test.New(t)
	must(t, "--recovery-key", v.Path)
	return alone(t, []string{"PASSWORD=hunter2"}, named(words, "AGE", "age13srjh7206vq8lcvr2ujv8mjz6lqz9j8rygesnnpg0wa9td25n33sm590ng", "VOLUME", v.Path)...)
}

// onMachine is a machine in its first boot.
func onMachine(t *testing.T, words []string) *exec.Cmd {
	m, volume := followMachine(t)
	return m.command(named(words, "TPM", m.chip.Device(), "VOLUME", volume)...)
}

// withCard has a keyslot of a smartcard in the form of old.
func withCard(t *testing.T, words []string) *exec.Cmd {
	v := luks2test.New(t)
	_, env := newDesk(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install(t, "luksmith-pkcs11", exe)
	env = append(env, "PASSWORD=hunter2", "PIN=1234")
	if r := runCommand(t, alone(t, env, "--pkcs11-token-uri=pkcs11:object=rsa", "--compat=257", v.Path)); r.status != 0 {
		t.Fatalf("enrolling: status %d\n%s", r.status, r.stderr)
	}
	return alone(t, env, named(words, "VOLUME", v.Path)...)
}
