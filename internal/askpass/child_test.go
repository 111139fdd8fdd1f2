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
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
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
			want := "interrupted by SIGINT"
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
		c.said("error interrupted by " + unix.SignalName(s))
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

// childTakesEnvironment moves $PIN and $PASSWORD away.
func childTakesEnvironment() error {
	before := os.Getenv("OTHER")
	e := TakeEnvironment("PIN", "PASSWORD", "ABSENT")
	s, err := New(Options{Prefix: "cryptenroll", Environment: e, Headless: true}).Ask(context.Background(), tokens.Prompt{Text: "PIN", Credential: "tpm2-pin"})
	if err != nil {
		return err
	}
	_, pin := os.LookupEnv("PIN")
	say(fmt.Sprintf("%d bytes, $PIN set: %v, other: %v", s.Len(), pin, before == os.Getenv("OTHER")))
	pause()
	s.Wipe()
	e.Close()
	say("wiped")
	pause()
	return nil
}

// inMemory counts how often text stands in the memory of a process.
func inMemory(t *testing.T, pid int, text string) int {
	t.Helper()
	if raceDetector {
		testenv.NotApplicable(t, "the race detector has copies of its own")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, os.ErrPermission) {
		testenv.NotApplicable(t, "may not read the memory of a child")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	count := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[1] != 'w' {
			continue
		}
		const chunk = 1 << 20
		for at := from; at < to; at += chunk {
			buf := make([]byte, min(chunk+int64(len(text))-1, to-at))
			n, _ := mem.ReadAt(buf, at)
			if found := strings.Count(string(buf[:n]), text); found > 0 {
				t.Logf("%q stands %d times in %s", text, found, strings.TrimSpace(line))
				count += found
			}
		}
	}
	return count
}

func TestTypedSecretLeavesMemory(t *testing.T) {
	t.Parallel()
	const typed = "correct horse battery staple"
	c := startChild(t, "ask")
	c.asks()
	c.types(typed[:10])
	c.shows("PIN: **********")
	c.types("zzz\x7f\x7f\x7f" + typed[10:] + "\n")
	c.said("answer of")
	if n := inMemory(t, c.cmd.Process.Pid, typed[:14]); n != 1 {
		t.Errorf("%d copies of the answer, want the one of the caller", n)
	}
	c.goOn()
	c.said("wiped")
	for _, part := range []string{typed[:6], typed[10:18], typed[len(typed)-6:]} {
		if n := inMemory(t, c.cmd.Process.Pid, part); n != 0 {
			t.Errorf("%d copies of %q after Wipe", n, part)
		}
	}
}

func TestHalfTypedTextLeavesMemory(t *testing.T) {
	t.Parallel()
	c := startChild(t, "ask twice")
	c.asks()
	c.types("correct horse battery")
	c.shows("PIN: *********************")
	c.goOn()
	c.said("withdrawn")
	if n := inMemory(t, c.cmd.Process.Pid, "horse b"); n != 0 {
		t.Errorf("%d copies after the question was withdrawn", n)
	}
}

// staticBinary is this test binary without a C library, as the commands are. A C
// library goes through the environment at start and leaves pieces of it in vector
// registers, which Go never overwrites and the kernel copies to the stack with a
// signal.
func staticBinary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, "go")
	path := filepath.Join(t.TempDir(), "static.test")
	build := exec.Command("go", "test", "-c", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestEnvironmentIsTaken(t *testing.T) {
	t.Parallel()
	c := startProgram(t, []string{staticBinary(t)}, "environment", "PIN=correct horse battery", "OTHER=stays", "PASSWORD=staple staple")
	environ := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	c.said("21 bytes, $PIN set: false, other: true")
	if e := environ(); strings.Contains(e, "horse") || strings.Contains(e, "staple") || !strings.Contains(e, "OTHER=stays") || !strings.Contains(e, "PIN=\x00") {
		t.Errorf("/proc/PID/environ is %q", e)
	}
	c.goOn()
	c.said("wiped")
	for _, part := range []string{"horse batt", "staple sta"} {
		if n := inMemory(t, c.cmd.Process.Pid, part); n != 0 {
			t.Errorf("%d copies of %q", n, part)
		}
	}
}
