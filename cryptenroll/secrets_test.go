package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// noCoreFile matches the limits of a process that leaves none when it crashes.
var noCoreFile = regexp.MustCompile(`(?m)^Max core file size +0 +0 `)

// secretRun is one use of the command with secrets that occur nowhere else.
type secretRun struct {
	command            string // as it is installed
	volume             *luks2test.Volume
	old, fresh, output string
	pid                int
}

// installedCommand builds the command as `make` does. The test binary will not do:
// it is linked to the C library, whose loader reads the environment before anything
// else runs and leaves it in registers.
func installedCommand(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "make")
	dir := t.TempDir()
	testenv.Run(t, "make", "-s", "-C", "..", "commands", "COMMANDS=cryptenroll", "BUILD="+dir)
	return filepath.Join(dir, "cryptenroll")
}

// TestNoSecretIsLeftAtExit searches the whole memory, the arguments and the
// environment of the command where it asks the kernel to end, 20 times: what it
// read, what it printed and the key of the volume must be gone.
func TestNoSecretIsLeftAtExit(t *testing.T) {
	testenv.NeedRoot(t) // to look at a process that hides
	t.Parallel()
	runs := 20
	if testing.Short() {
		runs = 4
	}
	command := installedCommand(t)
	ways := []func(*testing.T, *secretRun){keyFileToRecoveryKey, environmentToPassphrase, typedToRecoveryKey, credentialsToJSON, overVarlink}
	for i := range runs {
		r := &secretRun{command: command, old: randomText(), fresh: randomText()}
		r.volume = luks2test.New(t, luks2test.WithPassphrase(r.old))
		ways[i%len(ways)](t, r)
		r.check(t, fmt.Sprintf("run %d, way %d", i, i%len(ways)))
	}
}

// randomText has 40 characters.
func randomText() string {
	b := make([]byte, 20)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// check looks for every secret of the run, in pieces: of what is overwritten in
// part, the rest counts.
func (r *secretRun) check(t *testing.T, name string) {
	t.Helper()
	key, err := hex.DecodeString(r.volume.VolumeKey)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"passphrase, beginning": r.old[:20], "passphrase, end": r.old[20:],
		"new passphrase, beginning": r.fresh[:20], "new passphrase, end": r.fresh[20:],
		"volume key, first half": string(key[:32]), "volume key, second half": string(key[32:]),
		"volume key, 16 bytes inside": string(key[8:24]), "volume key as text": r.volume.VolumeKey[:32],
	}
	if r.output != "" {
		texts["recovery key, beginning"], texts["recovery key, end"] = r.output[:20], r.output[51:]
		if !r.volume.Opens(t, r.output) {
			t.Fatalf("%s: the recovery key %q does not open", name, r.output)
		}
	}
	counts := testenv.CopiesIn(t, r.pid, texts)
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.pid, file))
		if err != nil {
			t.Fatal(err)
		}
		for what, text := range texts {
			counts[what] += bytes.Count(b, []byte(text))
		}
	}
	for what, n := range counts {
		if n != 0 {
			t.Errorf("%s: %s is in memory %d times", name, what, n)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.pid))
	if err != nil {
		t.Fatal(err)
	}
	if !noCoreFile.Match(limits) {
		t.Errorf("%s: a core file may be written:\n%s", name, limits)
	}
}

// prepare is the command, to be held at its end, with its standard output in a file.
func (r *secretRun) prepare(t *testing.T, env []string, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	cmd := exec.Command(r.command, args...)
	cmd.Env = append(os.Environ(), env...)
	testenv.HoldAtExit(t, cmd)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	cmd.Stdout = out
	return cmd, out
}

// run starts the command without a terminal, waits for its end and returns what it
// printed.
func (r *secretRun) run(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd, out := r.prepare(t, env, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	r.pid = testenv.AtExit(t, cmd)
	return printed(t, out)
}

func printed(t *testing.T, out *os.File) string {
	t.Helper()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cryptenroll.passphrase")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyFileToRecoveryKey(t *testing.T, r *secretRun) {
	r.output = r.run(t, nil, "--unlock-key-file="+secretFile(t, r.old), "--recovery-key", r.volume.Path)
}

func environmentToPassphrase(t *testing.T, r *secretRun) {
	r.run(t, []string{"PASSWORD=" + r.old, "NEWPASSWORD=" + r.fresh}, "--password", "--pbkdf-memory=1024",
		"--pbkdf-force-iterations=4", "--wipe-slot=password", r.volume.Path)
	if !r.volume.Opens(t, r.fresh) || r.volume.Opens(t, r.old) {
		t.Error("the new passphrase has not replaced the old one")
	}
}

func credentialsToJSON(t *testing.T, r *secretRun) {
	dir := filepath.Dir(secretFile(t, r.old))
	document := r.run(t, []string{"CREDENTIALS_DIRECTORY=" + dir}, "--json=short", "--recovery-key", r.volume.Path)
	_, key, _ := strings.Cut(document, `"recovery_key":"`)
	r.output, _, _ = strings.Cut(key, `"`)
}

// typedToRecoveryKey ends with a QR code on the terminal.
func typedToRecoveryKey(t *testing.T, r *secretRun) {
	cmd, out := r.prepare(t, nil, "--recovery-key", r.volume.Path)
	p := seat(t, cmd)
	p.sees(`current passphrase`)
	p.types(r.old + "\r")
	r.pid = testenv.AtExit(t, p.cmd)
	r.output = printed(t, out)
}
