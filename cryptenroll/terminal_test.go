package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// person is somebody at a terminal of 24 lines and 80 columns who runs the
// command. Standard output goes elsewhere, as in `key=$(cryptenroll …)`.
type person struct {
	t      *testing.T
	pty    *os.File
	cmd    *exec.Cmd
	stdout testenv.Output
	mu     sync.Mutex
	screen strings.Builder // raw
	seen   int             // how much of text() was passed
	shown  chan struct{}   // closed when all that came is in screen
}

var (
	escapes    = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
	whitespace = regexp.MustCompile(`[ \r\n]+`)
)

// text is what the terminal got, without escape sequences, lines joined.
func (p *person) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return whitespace.ReplaceAllString(escapes.ReplaceAllString(p.screen.String(), ""), " ")
}

// sit starts the command on a pseudo-terminal that is its controlling one.
func sit(t *testing.T, args ...string) *person {
	t.Helper()
	return sitWith(t, nil, args...)
}

// sitWith is sit with more in the environment.
func sitWith(t *testing.T, env []string, args ...string) *person {
	t.Helper()
	return seat(t, commandLine(t, env, args...))
}

// seat is sit for a command that was prepared.
func seat(t *testing.T, cmd *exec.Cmd) *person {
	t.Helper()
	p := &person{t: t, cmd: cmd}
	p.cmd.Env = append(p.cmd.Env, "TERM=xterm-256color", "LC_ALL=C.UTF-8", "SYSTEMD_EMOJI=0")
	if p.cmd.Stdout == nil {
		p.cmd.Stdout = &p.stdout
	}
	master, slave, err := pty.Open()
	if err != nil {
		testenv.NotApplicable(t, "no pseudo-terminals: "+err.Error())
	}
	defer slave.Close()
	_ = pty.Setsize(master, &pty.Winsize{Rows: 24, Cols: 80})
	p.cmd.Stdin, p.cmd.Stderr = slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pty, p.shown = master, make(chan struct{})
	go func() {
		defer close(p.shown)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.mu.Lock()
			p.screen.Write(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = master.Close() })
	return p
}

// sees waits until the terminal shows what matches, below what was seen before.
func (p *person) sees(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(20 * time.Second); ; {
		text := p.text()
		if m := re.FindStringSubmatchIndex(text[p.seen:]); m != nil {
			groups := re.FindStringSubmatch(text[p.seen:])
			p.seen += m[1]
			return groups
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the terminal never shows %q; since the last match it shows:\n%s", pattern, text[p.seen:])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	time.Sleep(30 * time.Millisecond) // the prompt drops what was typed before it
	if _, err := p.pty.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for the command and wants this exit status.
func (p *person) ends(want int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	_ = p.cmd.Wait()
	<-p.shown // reading ends with an error when nobody has the terminal open
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.t.Errorf("exit status %d, want %d; the terminal shows:\n%s", got, want, p.text())
	}
}

func TestPersonMistypesAndIsAskedAgain(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	p := sit(t, "--recovery-key", v.Path)
	p.sees(`current passphrase for disk .*:`)
	p.types("hunter3\r")
	p.sees(`(?i)wrong`)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.sees(`recovery key of`)
	p.sees(`Enrolled (".*", )?keyslot 1 of`)
	p.ends(0)
	key := strings.TrimSpace(p.stdout.String())
	if len(key) != 71 || !v.Opens(t, key) {
		t.Errorf("standard output is %q", p.stdout.String())
	}
	if strings.Contains(p.screen.String(), "hunter") || strings.Contains(p.screen.String(), key) {
		t.Error("a secret is on the terminal")
	}
}

// enrolRecoveryKey lets the command enrol one and returns it.
func enrollRecoveryKey(t *testing.T, v *luks2test.Volume) string {
	t.Helper()
	p := sit(t, "--recovery-key", v.Path)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.ends(0)
	return strings.TrimSpace(p.stdout.String())
}

func TestCtrlCLeavesTerminalAndVolumeAlone(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	before, err := os.ReadFile(v.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key    string
		signal os.Signal
	}{{"half typ\x03", nil}, {"half typ", syscall.SIGTERM}, {"\x04", nil}} {
		p := sit(t, "--recovery-key", "--wipe-slot=0", "--yes", v.Path)
		was, err := unix.IoctlGetTermios(int(p.pty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		p.sees(`current passphrase`)
		p.types(c.key)
		if c.signal != nil {
			_ = p.cmd.Process.Signal(c.signal)
		}
		p.sees(`error: (interrupted|interrupted by SIGTERM|cancelled); nothing was changed`)
		p.ends(11)
		is, err := unix.IoctlGetTermios(int(p.pty.Fd()), unix.TCGETS)
		if err != nil || is.Lflag&unix.ECHO == 0 || is.Lflag&unix.ICANON == 0 {
			t.Errorf("%q: the terminal is left with flags %#x (before the prompt %#x), %v", c.key, is.Lflag, was.Lflag, err)
		}
	}
	if after, _ := os.ReadFile(v.Path); !bytes.Equal(before, after) {
		t.Error("the volume changed")
	}
}

func TestWipeIsConfirmedOnATerminal(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "second", luks2.Token{})
	for _, answer := range []string{"n\r", "\r", "y\r"} {
		p := sit(t, "--wipe-slot=1", v.Path)
		p.sees(`Wipe keyslot 1 \(password\) of .* for good\?`)
		p.types(answer)
		if answer != "y\r" {
			p.ends(11)
			if !v.Opens(t, "second") {
				t.Fatalf("%q wiped the slot", answer)
			}
			continue
		}
		p.sees(`current passphrase`)
		p.types("hunter2\r")
		p.sees(`Wiped keyslot 1`)
		p.ends(0)
	}
	if v.Opens(t, "second") {
		t.Error("the slot still opens")
	}
}

func TestNewPassphraseIsTypedTwice(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	p := sit(t, "--password", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", v.Path)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.sees(`new passphrase`)
	p.types("one thing and another\r")
	p.sees(`(?i)(again|repeat)`)
	p.types("another thing\r")
	p.sees(`(?i)(match|agree|differ)`)
	p.sees(`new passphrase`)
	p.types("one thing and another\r")
	p.sees(`(?i)(again|repeat)`)
	p.types("one thing and another\r")
	p.sees(`Enrolled (".*", )?keyslot 1 of`)
	p.ends(0)
	if !v.Opens(t, "one thing and another") {
		t.Error("the new passphrase does not open the volume")
	}
}

// TestWrongAnswersAreCountedOnce: the last line says how many there were and that none
// was right, and nothing twice; giving up has one line too.
func TestWrongAnswersAreCountedOnce(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	p := sit(t, "test", v.Path)
	for range maxTries {
		p.sees(`passphrase for disk .*:`)
		p.types("hunter3\r")
	}
	p.sees(`error: 5 wrong answers: none is a passphrase of `)
	p.ends(2)

	p = sit(t, "test", v.Path)
	p.sees(`passphrase for disk .*:`)
	p.types("hunter3\r")
	p.sees(`Wrong passphrase`)
	p.types("\x04")
	p.ends(11)
	if n := strings.Count(p.text(), "error: "); n != 1 {
		t.Errorf("%d errors:\n%s", n, p.text())
	}
}

// TestKeyAndResultStayInSight: on a small terminal the QR code scrolled the recovery
// key away that it stands for.
func TestKeyAndResultStayInSight(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	cmd := commandLine(t, nil, "--recovery-key", "--label=safe", filepath.Base(v.Path))
	shell := exec.Command("bash", append([]string{"-c", `exec -a cryptenroll "$0" "$@" >&2`, cmd.Path}, cmd.Args[1:]...)...)
	shell.Env, shell.Dir = cmd.Env, filepath.Dir(v.Path)
	p := seat(t, shell)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.ends(0)
	lines := strings.Split(strings.TrimRight(escapes.ReplaceAllString(p.screen.String(), ""), "\r\n"), "\n")
	last := strings.Join(lines[max(0, len(lines)-23):], "\n") // a terminal of 24 lines, and the cursor
	if strings.Count(last, "▀") < 20*41 || !regexp.MustCompile(`\n(\w{8}-){7}\w{8}\r?\nEnrolled "safe", keyslot 1 of `).MatchString(last) {
		t.Errorf("the terminal shows at the end\n%s", last)
	}
}

// TestSmallWindowHasNoQRCode says why none is shown, and shows the key.
func TestSmallWindowHasNoQRCode(t *testing.T) {
	t.Parallel()
	cmd := commandLine(t, nil, "--recovery-key", luks2test.New(t).Path)
	shell := exec.Command("bash", append([]string{"-c", `stty rows 12; exec -a cryptenroll "$0" "$@" >&2`, cmd.Path}, cmd.Args[1:]...)...)
	shell.Env = cmd.Env
	p := seat(t, shell)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.sees(`\(The window is too small for the QR code: 41 columns and \d+ rows\.\) (\w{8}-){7}\w{8} Enrolled keyslot 1 of `)
	p.ends(0)
}
