package luks2_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// TestMain turns the test binary into the child that some tests need.
func TestMain(m *testing.M) {
	if child := os.Getenv("LUKSMITH_TEST_CHILD"); child != "" {
		os.Exit(runChild(child, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// runChild runs one of the children.
func runChild(name string, args []string) int {
	children := map[string]func([]string) error{"enrol-forever": enrollForever, "enrol": enrollOnce, "open-and-wait": openAndWait, "keep": keepInput}
	if err := children[name](args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child prepares a run of the test binary as one of the children.
func child(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "LUKSMITH_TEST_CHILD="+name)
	return cmd
}

// enrolForever replaces a keyslot with its token again and again, in one update
// each: the k-th passphrase is "k".
func enrollForever(args []string) error {
	d, err := luks2.Open(args[0], nil)
	if err != nil {
		return err
	}
	first := secret.Copy([]byte(luks2test.Passphrase))
	key, err := d.OpenKeyslot(context.Background(), 0, first)
	if err != nil {
		return err
	}
	for k := 0; ; k++ {
		if err := d.Update(context.Background(), func(tx *luks2.Tx) error { return replaceAll(tx, key, strconv.Itoa(k)) }); err != nil {
			return err
		}
	}
}

func replaceAll(tx *luks2.Tx, key *luks2.VolumeKey, passphrase string) error {
	old := tx.Header()
	text := secret.Copy([]byte(passphrase))
	defer text.Wipe()
	slot, err := tx.AddKeyslot(key, text, luks2.MinimalKDF)
	if err != nil {
		return err
	}
	if _, err := tx.AddToken(luks2.Token{Type: passphrase, Keyslots: []int{slot}}); err != nil {
		return err
	}
	for _, t := range old.Tokens {
		if err := tx.RemoveToken(t.ID); err != nil {
			return err
		}
	}
	for _, k := range old.Keyslots {
		if k.ID == 0 {
			continue
		}
		if err := tx.RemoveKeyslot(k.ID); err != nil {
			return err
		}
	}
	return nil
}

// TestKilledAtAnyMoment kills enrolments with wipes 200 times. Afterwards the
// header is valid, the first passphrase opens, and every other keyslot has its
// token; the keyslot of a token that is alone opens.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	for _, name := range []string{"one", "another"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killRepeatedly(t, 100)
		})
	}
}

func killRepeatedly(t *testing.T, times int) {
	t.Helper()
	v := luks2test.New(t)
	writes := uint64(0)
	for i := range times {
		before := header(t, v.Device).SeqID
		cmd := child("enrol-forever", v.Path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pause := time.Duration(15+i%40) * time.Millisecond
		if writes < uint64(i)/5 {
			pause *= 5 // a busy machine: the child has not begun to write yet
		}
		time.Sleep(pause)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h := header(t, v.Device)
		writes += h.SeqID - before
		if !v.Opens(t, v.Passphrase) {
			t.Fatalf("kill %d: the first passphrase does not open", i)
		}
		checkTokens(t, v, h)
	}
	t.Logf("%d header writes in %d runs", writes, times)
	if writes < uint64(times)/10 {
		t.Errorf("only %d header writes in %d runs: the kills hit nothing", writes, times)
	}
}

// checkTokens looks for a keyslot without its token, and whether the newest opens.
func checkTokens(t *testing.T, v *luks2test.Volume, h *luks2.Header) {
	t.Helper()
	opened := len(h.Keyslots) == 1
	for _, k := range h.Keyslots {
		if k.ID == 0 {
			continue
		}
		tokens := h.TokensOf(k.ID)
		if len(tokens) != 1 {
			t.Fatalf("keyslot %d has tokens %+v", k.ID, tokens)
		}
		key, err := v.Device.OpenKeyslot(t.Context(), k.ID, text(t, tokens[0].Type))
		if err == nil {
			key.Wipe()
			opened = true
		}
	}
	if !opened {
		t.Fatalf("none of the enrolled keyslots opens: %+v", h.Tokens)
	}
}

// enrolOnce adds a keyslot with a token.
func enrollOnce(args []string) error {
	d, err := luks2.Open(args[0], nil)
	if err != nil {
		return err
	}
	first := secret.Copy([]byte(luks2test.Passphrase))
	defer first.Wipe()
	key, err := d.OpenKeyslot(context.Background(), 0, first)
	if err != nil {
		return err
	}
	defer key.Wipe()
	return d.Update(context.Background(), func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(key, first, luks2.MinimalKDF)
		if err != nil {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Type: "x", Keyslots: []int{slot}})
		return err
	})
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAnEnrolmentTakesThreeFsyncs counts system calls of a process that unlocks
// and enrols. systemd-cryptenroll 257 makes 5 fsync and about 4050 reads.
func TestAnEnrollmentTakesThreeFsyncs(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "strace")
	v := luks2test.New(t)
	log := filepath.Join(t.TempDir(), "strace")
	cmd := child("enrol", v.Path)
	cmd.Args = append([]string{"strace", "-f", "-o", log, "-e", "trace=execve,fsync,fdatasync,sync,syncfs,pread64,pwrite64,openat"}, cmd.Args...)
	cmd.Path = program(t, "strace")
	if out, err := cmd.CombinedOutput(); err != nil {
		testenv.NotApplicable(t, fmt.Sprintf("strace does not run here: %v %s", err, out))
	}
	trace := string(readFile(t, log))
	for call, want := range map[string]int{"execve(": 1, "fsync(": 3, "fdatasync(": 0, "syncfs(": 0, " sync(": 0, "pwrite64(": 3} {
		if n := strings.Count(trace, call); n != want {
			t.Errorf("%d times %s), want %d", n, call, want)
		}
	}
	// A header three times (to unlock, to plan, to check under the lock), 32 KiB
	// each in one call, and one key area in eight parts. The runtime's own reads are
	// short.
	if n := len(regexp.MustCompile(`(?m)pread64(?:\(| resumed).* = \d{5,}$`).FindAllString(trace, -1)); n != 3+8 {
		t.Errorf("%d reads of the device, want %d", n, 3+8)
	}
	if t.Failed() {
		t.Log(trace)
	}
}
