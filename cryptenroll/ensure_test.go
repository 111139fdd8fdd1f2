package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// crashSpec lists four keyslots, one of which replaces another, and wants the
// bootstrap passphrase gone.
const crashSpec = `version: 1
unlock: [{file: DIR/old}, {file: DIR/new}]
keyslots:
` + adminEntry + `  - {label: second, type: password, from: {file: DIR/second}, pbkdf: pbkdf2, pbkdf-force-iterations: 1000}
  - {label: paper, type: recovery, to: {file: DIR/paper}}
  - {label: vault, type: recovery, to: {command: [/bin/sh, -c, "cat >DIR/taken"]}}
absent: [{type: password}]
`

const adminEntry = "  - {label: admin, type: password, from: {file: DIR/new}, pbkdf: pbkdf2, pbkdf-force-iterations: 1000}\n"

// ensureCase is a volume and a spec in a folder.
type ensureCase struct {
	dir, volume string
}

// newEnsureCase makes a volume whose keyslot 0, without a label, opens with "bootstrap"
// and whose keyslot 1, "admin", opens with what is to be replaced.
func newEnsureCase(t *testing.T) *ensureCase {
	t.Helper()
	v := luks2test.New(t, luks2test.WithPassphrase("bootstrap"))
	c := &ensureCase{dir: t.TempDir(), volume: v.Path}
	for name, text := range map[string]string{"old": "bootstrap\n", "new": "old admin\n", "second": "second\n",
		"spec": strings.ReplaceAll("version: 1\nunlock: [{file: DIR/old}]\nkeyslots:\n"+adminEntry, "DIR", c.dir)} {
		c.write(t, name, text)
	}
	if out, err := c.command(t).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testenv.Run(t, "cp", "--sparse=always", v.Path, c.volume+".start")
	for name, text := range map[string]string{"new": "new admin\n", "spec": strings.ReplaceAll(crashSpec, "DIR", c.dir)} {
		c.write(t, name, text)
	}
	return c
}

// reset brings back the volume before the run that is interrupted.
func (c *ensureCase) reset(t *testing.T) {
	t.Helper()
	testenv.Run(t, "cp", "--sparse=always", c.volume+".start", c.volume)
	testenv.Run(t, "rm", "-f", filepath.Join(c.dir, "paper"), filepath.Join(c.dir, "paper.part"), filepath.Join(c.dir, "taken"))
}

func (c *ensureCase) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *ensureCase) command(t *testing.T) *exec.Cmd {
	return commandLine(t, nil, "ensure", "--json=short", "--spec="+filepath.Join(c.dir, "spec"), c.volume)
}

// opens asks cryptsetup.
func (c *ensureCase) opens(passphrase string) bool {
	cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-file=-", c.volume)
	cmd.Stdin = strings.NewReader(passphrase)
	return cmd.Run() == nil
}

// recovery is the key that was written to a file, "" without one.
func (c *ensureCase) recovery(file string) string {
	b, _ := os.ReadFile(filepath.Join(c.dir, file))
	return strings.TrimSpace(string(b))
}

// check looks at the volume after a kill: what is to go opens, or all that comes
// in its place does.
func (c *ensureCase) check(t *testing.T, when string) {
	t.Helper()
	if !c.opens("bootstrap") && (!c.opens("new admin") || !c.opens("second") || !c.opens(c.recovery("paper")) || !c.opens(c.recovery("taken"))) {
		t.Errorf("%s: the bootstrap passphrase is gone, and not all that was listed opens", when)
	}
	if !c.opens("old admin") && !c.opens("new admin") {
		t.Errorf("%s: neither the old nor the new passphrase of admin opens", when)
	}
}

// completes runs ensure to its end, and once more.
func (c *ensureCase) completes(t *testing.T, when string) {
	t.Helper()
	for run, want := range []string{"", `{"changed":false,`} {
		out, err := c.command(t).Output()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: run %d: %v: %s", when, run+1, err, out)
		}
	}
	for passphrase, want := range map[string]bool{"bootstrap": false, "old admin": false, "new admin": true, "second": true, c.recovery("paper"): true, c.recovery("taken"): true} {
		if c.opens(passphrase) != want {
			t.Errorf("%s: %q opens: %t", when, passphrase, !want)
		}
	}
	var list struct{ Keyslots []struct{ Label string } }
	out, err := commandLine(t, nil, "list", "--json=short", c.volume).Output()
	if err != nil || json.Unmarshal(out, &list) != nil || len(list.Keyslots) != 4 {
		t.Errorf("%s: %v: %s", when, err, out)
	}
}

// TestEnsureKilledAtAnyMomentIsCompletedByTheNext kills 50 runs at random points, each
// between their start and their end.
func TestEnsureKilledAtAnyMomentIsCompletedByTheNext(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, "cryptsetup")
	c := newEnsureCase(t)
	c.reset(t)
	begin := time.Now()
	c.completes(t, "not killed")
	whole := time.Since(begin) / 2
	written := map[uint64]bool{}
	for killed := 0; killed < 50; {
		c.reset(t)
		after := time.Duration(rand.Int64N(int64(whole)))
		cmd := c.command(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
			whole = whole * 3 / 4 // it was done
			continue
		}
		killed++
		written[c.sequence(t)] = true
		when := fmt.Sprintf("killed after %v", after)
		c.check(t, when)
		c.completes(t, when)
		if t.Failed() {
			return
		}
	}
	t.Logf("the header had %d different sequence numbers", len(written))
}

// sequence is the sequence number of the header.
func (c *ensureCase) sequence(t *testing.T) uint64 {
	t.Helper()
	var list struct{ Sequence uint64 }
	out, err := commandLine(t, nil, "list", "--json=short", c.volume).Output()
	if err != nil || json.Unmarshal(out, &list) != nil {
		t.Errorf("%v: %s", err, out)
	}
	return list.Sequence
}

// TestEnsureKilledAtItsWritesIsCompletedByTheNext has the kernel kill the run as soon as
// one of its threads makes its n-th system call that writes or waits for the disk.
// What a loss of power leaves of each update is a matter of luks2's crash tests.
func TestEnsureKilledAtItsWritesIsCompletedByTheNext(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, "cryptsetup", "strace")
	c := newEnsureCase(t)
	for _, call := range []string{"pwrite64", "fsync", "renameat2"} {
		for n := 1; ; n++ {
			c.reset(t)
			run := c.command(t)
			cmd := exec.Command("strace", append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
				"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), run.Path}, run.Args[1:]...)...)
			cmd.Env = run.Env
			err := cmd.Run()
			when := fmt.Sprintf("killed at %s %d", call, n)
			c.check(t, when)
			c.completes(t, when)
			if t.Failed() {
				return
			}
			if err == nil {
				t.Logf("%d points at %s", n-1, call)
				break
			}
		}
	}
}
