package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/tokens"
)

func TestSignalsCancelWithCause(t *testing.T) {
	if signal.Ignored(unix.SIGHUP) || signal.Ignored(unix.SIGINT) { // under nohup, in the background
		cmd := exec.Command("env", "--default-signal=HUP,INT", os.Args[0], "-test.run=^TestSignalsCancelWithCause$")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with the signals' default effects: %v\n%s", err, out)
		}
		return
	}
	for s, said := range map[unix.Signal]string{unix.SIGINT: "interrupted", unix.SIGTERM: "interrupted by SIGTERM", unix.SIGHUP: "interrupted by SIGHUP"} {
		ctx, stop := WithSignals(t.Context())
		if err := unix.Kill(unix.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the signal does not end the context")
		}
		cause := context.Cause(ctx)
		if !errors.Is(cause, tokens.ErrCancelled) || !errors.Is(cause, context.Canceled) || cause.Error() != said {
			t.Errorf("cause %v", cause)
		}
		stop()
	}
	ctx, stop := WithSignals(t.Context())
	stop()
	if <-ctx.Done(); context.Cause(ctx) != context.Canceled {
		t.Errorf("cause after stop: %v", context.Cause(ctx))
	}
}

// TestSecondSignalEnds runs itself in a child that hangs after the first signal.
func TestSecondSignalEnds(t *testing.T) {
	if os.Getenv("LUKSMITH_TEST_HANG") != "" {
		ctx, stop := WithSignals(context.Background())
		defer stop()
		_, _ = os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		_, _ = os.Stdout.WriteString("first\n")
		time.Sleep(time.Minute)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSecondSignalEnds$")
	cmd.Env = append(os.Environ(), "LUKSMITH_TEST_HANG=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for range 2 {
		if _, err := out.Read(buf); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // the child gives the signal back after it cancels
		_ = cmd.Process.Signal(unix.SIGTERM)
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); status.Signal() != unix.SIGTERM {
		t.Errorf("the child ended with %v", cmd.ProcessState)
	}
}

func TestProtect(t *testing.T) {
	if os.Getenv("LUKSMITH_TEST_PROTECT") != "" {
		advice, err := Protect()
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); d != 0 {
			t.Error("the process is dumpable")
		}
		if !swapping() && len(advice) > 0 {
			t.Errorf("advice without swap: %v", advice)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestProtect$")
	cmd.Env = append(os.Environ(), "LUKSMITH_TEST_PROTECT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
