package askpass

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/tokens"
)

// Tests of signals and of memory need a process of their own, which is this test
// binary again with childVariable set to one of childModes. It says what happens
// on standard output, and goes on when a line comes on standard input.
const childVariable = "LUKSMITH_ASKPASS_CHILD"

var childModes = map[string]func() error{
	"ask":         childAsks,
	"ask agent":   childAsksAgent,
	"ask twice":   childAsksTwice,
	"panic":       childPanics,
	"loop panics": childLoopPanics,
	"shell":       childIsShell,
	"environment": childTakesEnvironment,
	"ask agents":  childAsksAgents,
}

func TestMain(m *testing.M) {
	mode := os.Getenv(childVariable)
	if mode == "" {
		os.Exit(m.Run())
	}
	if err := childModes[mode](); err != nil {
		say("error " + err.Error())
		os.Exit(1)
	}
}

func say(line string) { fmt.Println(line) }

// pause waits until the test allows to go on.
func pause() {
	var b [1]byte
	_, _ = os.Stdin.Read(b[:])
}

func childAsks() error {
	console, err := OpenConsole("/dev/tty")
	if err != nil {
		return err
	}
	defer console.Close()
	a := New(Options{Console: console})
	s, err := a.Ask(context.Background(), tokens.Prompt{Text: "PIN"})
	if err != nil {
		return err
	}
	say(fmt.Sprintf("answer of %d bytes", s.Len()))
	pause()
	s.Wipe()
	say("wiped")
	pause()
	return nil
}

// childAsksAgent has a question for agents only, in the folder $DIR.
func childAsksAgent() error {
	_, err := New(Options{AgentDir: os.Getenv("DIR")}).Ask(context.Background(), tokens.Prompt{Text: "PIN"})
	return err
}

// childAsksTwice has its question withdrawn while text is half typed.
func childAsksTwice() error {
	console, err := OpenConsole("/dev/tty")
	if err != nil {
		return err
	}
	defer console.Close()
	a := New(Options{Console: console})
	p := a.Start(context.Background(), Question{Prompt: tokens.Prompt{Text: "PIN"}})
	pause()
	p.Cancel()
	if _, err := p.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	say("withdrawn")
	pause()
	return nil
}

// childPanics has its main goroutine fail while a question is open.
func childPanics() error {
	console, err := OpenConsole("/dev/tty")
	if err != nil {
		return err
	}
	defer console.Close()
	p := New(Options{Console: console}).Start(context.Background(), Question{Prompt: tokens.Prompt{Text: "PIN"}})
	pause()
	if !isDone(p) {
		panic("on purpose")
	}
	return nil
}

// childLoopPanics breaks the console from within.
func childLoopPanics() error {
	console, err := OpenConsole("/dev/tty")
	if err != nil {
		return err
	}
	p := New(Options{Console: console}).Start(context.Background(), Question{Prompt: tokens.Prompt{Text: "PIN"}})
	pause()
	console.mu.Lock()
	console.prompts[0].editor.text.Wipe() // typing will index an empty slice
	console.mu.Unlock()
	say("broken")
	_, err = p.Wait()
	return err
}

func isDone(p *Pending) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// childIsShell controls a job as a shell does: "ask" in a process group of its
// own, stopped and continued.
func childIsShell() error {
	signal.Ignore(unix.SIGTTOU)
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	job := exec.Command(os.Args[0])
	job.Env = append(os.Environ(), childVariable+"=ask")
	job.Stdin, job.Stdout, job.Stderr = os.Stdin, os.Stdout, os.Stderr
	job.SysProcAttr = &syscall.SysProcAttr{Foreground: true, Ctty: int(tty.Fd())}
	if err := job.Start(); err != nil {
		return err
	}
	say(fmt.Sprintf("job %d", job.Process.Pid))
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(job.Process.Pid, &status, unix.WUNTRACED, nil); err != nil {
			return err
		}
		if !status.Stopped() {
			say(fmt.Sprintf("ended %d", status.ExitStatus()))
			return nil
		}
		say("stopped by " + unix.SignalName(status.StopSignal()))
		if err := unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp()); err != nil {
			return err
		}
		pause()
		if err := unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, job.Process.Pid); err != nil {
			return err
		}
		_ = unix.Kill(-job.Process.Pid, unix.SIGCONT)
	}
}

// child is a running test process with a terminal of its own.
type child struct {
	*rig // the terminal; no console on this side
	cmd  *exec.Cmd
	says *bufio.Reader
	in   io.WriteCloser
	// before are the settings of the terminal when the child started.
	before unix.Termios
}

func startChild(t *testing.T, mode string, env ...string) *child {
	t.Helper()
	// Under nohup the tests ignore SIGHUP, and their children would.
	return startProgram(t, []string{"env", "--default-signal=HUP,INT", os.Args[0]}, mode, env...)
}

// startProgram starts a command line that ends up in this test binary.
func startProgram(t *testing.T, argv []string, mode string, env ...string) *child {
	t.Helper()
	master, tty := openPTY(t)
	c := &child{rig: &rig{t: t, master: master, tty: tty}, cmd: exec.Command(argv[0], argv[1:]...)}
	c.before = c.settings()
	c.cmd.Env = append([]string{childVariable + "=" + mode, "TERM=xterm", "NO_COLOR=1", "SYSTEMD_EMOJI=0", "GOTRACEBACK=none"}, env...)
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		c.cmd.Env = append(c.cmd.Env, "GOCOVERDIR="+dir)
	}
	// The pseudo-terminal is descriptor 3 and becomes the controlling terminal.
	c.cmd.ExtraFiles = []*os.File{tty}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.says = bufio.NewReader(out)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.collect()
	}()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		_ = tty.Close()
		_ = master.Close()
		<-read
	})
	return c
}

func (c *child) goOn() {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.t.Fatal(err)
	}
}

// said reads the next line that the child says.
func (c *child) said(want string) string {
	c.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	line, err := c.says.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, want) {
		c.t.Fatalf("the child says %q, %v; want %q", line, err, want)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, want))
}

// asks waits for the prompt.
func (c *child) asks() {
	c.t.Helper()
	c.shows("PIN: (press TAB for no echo)")
}

func (c *child) raw() bool { return c.settings().Lflag&unix.ECHO == 0 }

// restored waits until the settings are as before.
func (c *child) restored() {
	c.t.Helper()
	for deadline := time.Now().Add(patience); c.settings() != c.before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("the terminal is not as it was: %+v, was %+v", c.settings(), c.before)
		}
	}
}
