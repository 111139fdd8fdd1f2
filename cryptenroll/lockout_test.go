package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/tokens/all"
)

// commandLine prepares a run of the command in a process of its own, without a
// terminal. env comes on top of the test's environment.
func commandLine(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Args[0] = "cryptenroll" // TestMain runs the command under this name
	cmd.Env = append(append(os.Environ(), "LUKSMITH_TEST_COMMAND=1"), env...)
	return cmd
}

// oldPassphrase is how a script unlocks the volumes of luks2test.
var oldPassphrase = []string{"PASSWORD=" + luks2test.Passphrase}

// TestKeyThatNobodyCanReadIsNotEnrolled: in no form of output is anything wiped
// before the recovery key is out.
func TestKeyThatNobodyCanReadIsNotEnrolled(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	reader.Close()
	for _, c := range []struct {
		name   string
		stdout *os.File // nil is /dev/null
		status int
	}{{"full disk", full, cli.ExitFailure}, {"closed pipe", closed, cli.ExitFailure}, {"null device", nil, cli.ExitRefused}} {
		for _, style := range []string{"off", "short", "pretty"} {
			v := luks2test.New(t)
			cmd := commandLine(t, oldPassphrase, "--recovery-key", "--wipe-slot=all", "--json="+style, v.Path)
			var messages bytes.Buffer
			cmd.Stderr = &messages
			if c.stdout != nil {
				cmd.Stdout = c.stdout
			}
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("%s, --json=%s: exit status %d, want %d: %s", c.name, style, got, c.status, messages.String())
			}
			if !v.Opens(t, luks2test.Passphrase) {
				t.Fatalf("%s, --json=%s: nobody has a key any more: %s", c.name, style, messages.String())
			}
			if n := len(readHeader(t, v).Keyslots); n != 1 {
				t.Errorf("%s, --json=%s: %d keyslots are left, one with a key that nobody has", c.name, style, n)
			}
		}
	}
}

func readHeader(t testing.TB, v *luks2test.Volume) *luks2.Header {
	t.Helper()
	h, err := v.Device.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestJSONIsCompleteAfterARefusedWipe: the key was printed by then, and the
// document around it has to be closed. It says that the key opens nothing.
func TestJSONIsCompleteAfterARefusedWipe(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	cmd := commandLine(t, oldPassphrase, "--recovery-key", "--recovery-confirm", "--wipe-slot=all", "--json=short", v.Path)
	out, _ := cmd.Output() // nobody is there to confirm
	if cmd.ProcessState.Success() {
		t.Fatal("nobody confirmed, and the command succeeded")
	}
	var document struct {
		Key   string         `json:"recovery_key"`
		Wiped []any          `json:"wiped"`
		Error *cli.ErrorView `json:"error"`
	}
	if err := json.Unmarshal(out, &document); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	removed := document.Error != nil && strings.Contains(document.Error.Message, "the new keyslot 1 is removed again")
	if len(document.Wiped) != 0 || !removed || v.Opens(t, document.Key) || !v.Opens(t, luks2test.Passphrase) {
		t.Errorf("the document says %q; keyslots %+v", out, readHeader(t, v).Keyslots)
	}
}

// TestKeyInAFileIsOnTheDiskBeforeTheWipe: else a power cut takes the new key, whose
// file is still in memory, after the old one.
func TestKeyInAFileIsOnTheDiskBeforeTheWipe(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "strace")
	v := luks2test.New(t)
	dir := t.TempDir()
	key, err := os.Create(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	cmd := commandLine(t, oldPassphrase, "--recovery-key", "--wipe-slot=all", v.Path)
	log := filepath.Join(dir, "trace")
	traced := exec.Command("strace", append([]string{"-f", "-o", log, "-e", "trace=fsync", cmd.Path}, cmd.Args[1:]...)...)
	traced.Env, traced.Stdout = cmd.Env, key
	if err := traced.Run(); err != nil {
		t.Fatal(err)
	}
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for line := range strings.Lines(string(trace)) {
		if _, call, ok := strings.Cut(line, "fsync("); ok {
			files = append(files, call[:strings.IndexAny(call, ") ")]) // "1)", or "1 <unfinished ...>" where another thread comes between
		}
	}
	// Three for the enrolment, the key, three for the wipe.
	if len(files) != 7 || files[3] != "1" || slices.Index(files, "1") != 3 {
		t.Errorf("fsync of the descriptors %v", files)
	}
}

// planned is a plan of the command that waits to be executed.
func planned(t *testing.T, v *luks2test.Volume, change func(*options)) (*app, *outcome) {
	t.Helper()
	a := newApp("cryptenroll", all.New)
	a.options.unlock.headless = true
	change(&a.options)
	p, err := a.makePlan(t.Context(), v.Path)
	if err != nil {
		t.Fatal(err)
	}
	return a, &outcome{plan: p, opened: -1}
}

func remove(t *testing.T, v *luks2test.Volume, slot int) {
	t.Helper()
	if err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { return tx.RemoveKeyslot(slot) }); err != nil {
		t.Fatal(err)
	}
}

// TestTwoWipesAtOnceLeaveAWayIn: each run proves the keyslot that the other wipes.
func TestTwoWipesAtOnceLeaveAWayIn(t *testing.T) {
	t.Parallel()
	for name, unproven := range map[string]bool{"proven": false, "unproven": true} {
		v := luks2test.New(t)
		second := v.Enroll(t, "second", luks2.Token{})
		a, out := planned(t, v, func(o *options) { o.wipe, o.unprovenWipe = []string{"1"}, unproven })
		if !unproven {
			out.opened = 0
		}
		remove(t, v, 0) // by the other run
		if err := a.executor().wipeSlots(t.Context(), out); !errors.Is(err, cli.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if h := readHeader(t, v); len(h.Keyslots) != 1 || h.Keyslots[0].ID != second {
			t.Errorf("%s: left are %+v", name, h.Keyslots)
		}
	}
}

// TestProofIsTheKeyslotAndNotItsNumber: the number may belong to another keyslot by
// now.
func TestProofIsTheKeyslotAndNotItsNumber(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "second", luks2.Token{})
	a, out := planned(t, v, func(o *options) { o.wipe = []string{"0"} })
	out.opened = 1
	remove(t, v, 1)
	v.Enroll(t, "of somebody else", luks2.Token{})
	if err := a.executor().wipeSlots(t.Context(), out); !errors.Is(err, cli.ErrRefused) {
		t.Error(err)
	}
	if !v.Opens(t, luks2test.Passphrase) {
		t.Error("the keyslot was wiped")
	}
}

// TestKeyslotWithoutOwnerIsTakenBack, but not one that has replaced others: they
// are gone.
func TestKeyslotWithoutOwnerIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, replaced := range [][]int{nil, {3}} {
		v := luks2test.New(t)
		a, out := planned(t, v, func(*options) {})
		e := &enrolled{slot: v.Enroll(t, "lost", luks2.Token{Type: "systemd-recovery"}), replaced: replaced}
		cause := errors.New("cause")
		if err := a.executor().takeBack(out.plan, e, cause); !errors.Is(err, cause) {
			t.Error(err)
		}
		h := readHeader(t, v)
		if want := 1 + len(replaced); len(h.Keyslots) != want || len(h.Tokens) != want-1 {
			t.Errorf("replaced %v: keyslots %+v, tokens %+v", replaced, h.Keyslots, h.Tokens)
		}
	}
}
