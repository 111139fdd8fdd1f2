package helper

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// forkOptions are the parameters of the test method "fork".
type forkOptions struct {
	Leaves  bool // the child leaves the process group
	Crashes bool // the helper ends before it answers
}

// fork has a helper start a process that keeps the helper's streams open, and
// returns the number of that.
func fork(t *testing.T, p *Process, o forkOptions) (child int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = p.Call(ctx, Call{Method: "fork", Params: o, OnEvent: func(e string) { child, _ = strconv.Atoi(e) }}, nil)
	if child == 0 {
		t.Fatalf("no child: %v", err)
	}
	t.Cleanup(func() { _ = unix.Kill(child, unix.SIGKILL) })
	return child, err
}

func TestWhatAModuleForksEndsWithTheHelper(t *testing.T) {
	for name, crashes := range map[string]bool{"the helper is closed": false, "the helper crashes": true} {
		p := start(t, "luksmith-good")
		child, err := fork(t, p, forkOptions{Crashes: crashes})
		if crashes != errors.Is(err, ErrCrashed) {
			t.Errorf("%s: %v", name, err)
		}
		_ = p.Close()
		if !ends(child) {
			t.Errorf("%s: its child is still there", name)
		}
	}
}

func TestCrashIsReportedAlthoughAChildHoldsThePipes(t *testing.T) {
	p := start(t, "luksmith-good")
	_, err := fork(t, p, forkOptions{Crashes: true, Leaves: true})
	if !errors.Is(err, ErrCrashed) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestHelperCannotEatTheMemoryOfTheMachine counts what it gets: of memory, and of files
// that are in memory.
func TestHelperCannotEatTheMemoryOfTheMachine(t *testing.T) {
	if testenv.RaceDetector {
		testenv.NotApplicable(t, "the race detector takes memory itself")
	}
	for method, want := range map[string]string{"eat": "out of memory", "write": "file too large"} {
		got := 0
		_, err := start(t, "luksmith-good").Call(t.Context(), Call{Method: method, OnEvent: func(string) { got++ }}, nil)
		if err == nil || !strings.Contains(err.Error(), want) || (method == "eat") != errors.Is(err, ErrCrashed) {
			t.Errorf("%s: %v", method, err)
		}
		if got < 4 || got > maxData/meal {
			t.Errorf("%s: it got %d times 64 MiB", method, got)
		}
	}
}

func TestWordsOfAHelperAreBounded(t *testing.T) {
	p := start(t, "luksmith-good")
	if _, err := p.Call(t.Context(), Call{Method: "chatter"}, nil); err != nil {
		t.Fatal(err)
	}
	p.stderr.mu.Lock()
	defer p.stderr.mu.Unlock()
	if n := cap(p.stderr.buf); n > 2*p.stderr.limit {
		t.Errorf("%d bytes of stderr are kept", n)
	}
}

func TestTooManySecretsAreRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	secrets, err := start(t, "luksmith-good").Call(ctx, Call{Method: "many"}, nil)
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("%d secrets, %v", len(secrets), err)
	}
}

func TestFullMachineIsNotAMissingHelper(t *testing.T) {
	for _, full := range []error{unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.ENOMEM} {
		if err := startError("/x", full); errors.Is(err, ErrNotInstalled) || !errors.Is(err, full) {
			t.Errorf("%v becomes %v", full, err)
		}
	}
	if err := startError("/x", unix.ENOEXEC); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("another machine's program: %v", err)
	}
}
