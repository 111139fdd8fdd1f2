package askpass

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
)

func TestSignalsAtAPrompt(t *testing.T) {
	for name, send := range map[string]func(c *child){
		"SIGINT from the keyboard": func(c *child) { c.types("\x03") },
		"SIGINT":                   func(c *child) { _ = c.cmd.Process.Signal(unix.SIGINT) },
		"SIGTERM":                  func(c *child) { _ = c.cmd.Process.Signal(unix.SIGTERM) },
		"SIGHUP":                   func(c *child) { _ = c.cmd.Process.Signal(unix.SIGHUP) },
		"impatient": func(c *child) {
			for range 20 {
				_ = c.cmd.Process.Signal(unix.SIGINT)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startChild(t, "ask")
			c.asks()
			c.types("half")
			c.shows("PIN: ****")
			if !c.raw() {
				t.Error("the terminal echoes")
			}
			send(c)
			want := "interrupted"
			if strings.HasPrefix(name, "SIGTERM") || strings.HasPrefix(name, "SIGHUP") {
				want = "interrupted by " + name
			}
			if name != "impatient" {
				c.said("error " + want)
			}
			_ = c.cmd.Wait()
			c.restored()
			c.showsOnly("")
			if got := c.leftOver(0); got != "" {
				t.Errorf("the next reader gets %q", got)
			}
		})
	}
}

// TestSignalsRemoveTheAgentsFiles is for services, which have no terminal.
func TestSignalsRemoveTheAgentsFiles(t *testing.T) {
	t.Parallel()
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		dir := t.TempDir()
		c := startChild(t, "ask agent", "DIR="+dir)
		askFile(t, dir)
		_ = c.cmd.Process.Signal(s)
		c.said("error " + (&cli.SignalError{Signal: s}).Error())
		_ = c.cmd.Wait()
		empty(t, dir)
	}
}

func TestSIGQUITAtAPrompt(t *testing.T) {
	t.Parallel()
	c := startChild(t, "ask")
	c.asks()
	c.types("\x1c")
	err := c.cmd.Wait()
	if c.cmd.ProcessState.ExitCode() != 2 { // the Go runtime's way to end
		t.Errorf("%v", err)
	}
	c.restored()
}

func TestPanicsRestoreTheTerminal(t *testing.T) {
	t.Parallel()
	c := startChild(t, "panic")
	c.asks()
	c.goOn()
	if err := c.cmd.Wait(); c.cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("the child did not panic: %v", err)
	}
	c.restored()
}

func TestPanicWhileReadingRestoresTheTerminal(t *testing.T) {
	t.Parallel()
	c := startChild(t, "loop panics")
	c.asks()
	c.goOn()
	c.said("broken")
	c.types("x")
	if err := c.cmd.Wait(); c.cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("the child did not panic: %v", err)
	}
	c.restored()
}

// TestStopAndContinue is ^Z and fg, then SIGSTOP, which cannot be heard.
func TestStopAndContinue(t *testing.T) {
	t.Parallel()
	c := startChild(t, "shell")
	var pid int
	if _, err := fmt.Sscan(c.said("job"), &pid); err != nil {
		t.Fatal(err)
	}
	c.asks()
	c.types("ab")
	c.shows("PIN: **")
	c.types("\x1a")
	c.said("stopped by SIGSTOP")
	if c.settings() != c.before {
		t.Error("the terminal is not as it was while the job is stopped")
	}
	c.showsOnly("")
	c.types("typed to the shell\n")
	c.goOn()
	c.shows("PIN: **")
	if !c.raw() {
		t.Error("the terminal echoes after SIGCONT")
	}
	_ = unix.Kill(pid, unix.SIGSTOP)
	c.said("stopped by SIGSTOP")
	if err := unix.IoctlSetTermios(int(c.tty.Fd()), unix.TCSETS, &c.before); err != nil { // as shells do
		t.Fatal(err)
	}
	c.goOn()
	c.shows("\nPIN: **")
	for deadline := time.Now().Add(patience); !c.raw() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if !c.raw() {
		t.Error("the terminal echoes after SIGSTOP and SIGCONT")
	}
	c.types("c\n")
	c.said("answer of 3 bytes")
	c.restored()
	c.goOn()
	c.said("wiped")
	c.goOn()
	c.said("ended 0")
}

// TestStopInAnOrphanedGroup: nobody could continue the process, so it goes on.
func TestStopInAnOrphanedGroup(t *testing.T) {
	t.Parallel()
	c := startChild(t, "ask")
	c.asks()
	c.types("ab")
	c.shows("PIN: **")
	c.types("\x1a")
	_ = c.cmd.Process.Signal(unix.SIGTSTP)
	time.Sleep(50 * time.Millisecond)
	c.types("c\n")
	c.said("answer of 3 bytes")
}
