package askpass

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// patience is how long a test waits for something that should happen at once.
const patience = 20 * time.Second

// rig is a console on a pseudo-terminal, seen from the keyboard's side.
type rig struct {
	t       *testing.T
	console *Console
	tty     *os.File // the other side's settings
	master  *os.File
	mu      sync.Mutex
	out     strings.Builder
}

// openPTY makes a terminal of 80 columns. Unlike pty.Open's, its master does not
// block, so that closing it ends a Read and hangs the terminal up.
func openPTY(t *testing.T) (master, tty *os.File) {
	t.Helper()
	blocking, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(blocking, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = blocking.Close()
	master = os.NewFile(uintptr(fd), "master")
	// A terminal whose files the garbage collector closed has no name any more.
	t.Cleanup(func() { _, _ = master.Close(), tty.Close() })
	return master, tty
}

// newRig opens a console on a new terminal, without colour and emoji.
func newRig(t *testing.T) *rig {
	t.Helper()
	master, tty := openPTY(t)
	console, err := OpenConsole(tty.Name())
	if err != nil {
		t.Fatal(err)
	}
	console.screen.colour, console.screen.emoji, console.screen.dumb = false, false, false
	r := &rig{t: t, console: console, tty: tty, master: master}
	read := make(chan struct{})
	go func() {
		defer close(read)
		r.collect()
	}()
	t.Cleanup(func() {
		console.Close()
		_ = tty.Close()
		_ = master.Close()
		<-read
	})
	return r
}

// collect gathers what the terminal shows until it is closed.
func (r *rig) collect() {
	buf := make([]byte, 4096)
	for {
		n, err := r.master.Read(buf)
		r.mu.Lock()
		r.out.Write(buf[:n])
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (r *rig) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// until waits for a condition on the screen as a person would see it, with no
// blanks at the ends of lines.
func (r *rig) until(what string, condition func(screen string) bool) {
	r.t.Helper()
	var seen string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if seen = testenv.Render(r.output(), 80); condition(seen) {
			return
		}
	}
	r.t.Fatalf("the screen shows\n%q, want\n%q", seen, what)
}

// shows waits until the screen ends with text.
func (r *rig) shows(text string) {
	r.t.Helper()
	r.until("... "+text, func(screen string) bool { return strings.HasSuffix(screen, strings.TrimRight(text, " ")) })
}

// showsOnly waits until the screen is text.
func (r *rig) showsOnly(text string) {
	r.t.Helper()
	r.until(text, func(screen string) bool { return screen == strings.TrimRight(text, " ") })
}

func (r *rig) types(keys string) {
	r.t.Helper()
	if _, err := io.WriteString(r.master, keys); err != nil {
		r.t.Fatal(err)
	}
}

// settings are those of the terminal now.
func (r *rig) settings() unix.Termios {
	r.t.Helper()
	s, err := unix.IoctlGetTermios(int(r.tty.Fd()), unix.TCGETS)
	if err != nil {
		r.t.Fatal(err)
	}
	return *s
}

// leftOver is what the next reader of the terminal gets; it waits for n bytes.
func (r *rig) leftOver(n int) string {
	r.t.Helper()
	fd := int(r.tty.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		r.t.Fatal(err)
	}
	var got []byte
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		buf := make([]byte, 64)
		k, _ := unix.Read(fd, buf)
		got = append(got, buf[:max(k, 0)]...)
		if len(got) >= n {
			break
		}
	}
	return string(got)
}

// asked is a question in another goroutine.
type asked struct {
	t    *testing.T
	done chan promptResult
}

func (r *rig) ask(ctx context.Context, p *prompt) *asked {
	a := &asked{r.t, make(chan promptResult, 1)}
	go func() {
		s, err := r.console.ask(ctx, p)
		a.done <- promptResult{s, err}
	}()
	return a
}

func (a *asked) result() (string, error) {
	a.t.Helper()
	select {
	case r := <-a.done:
		defer r.secret.Wipe()
		return string(r.secret.Bytes()), r.err
	case <-time.After(patience):
		a.t.Fatal("the question does not end")
		return "", nil
	}
}

func (a *asked) want(text string) {
	a.t.Helper()
	if got, err := a.result(); err != nil || got != text {
		a.t.Errorf("answer %q, %v; want %q", got, err, text)
	}
}

func shown(text string, echo Echo) *prompt {
	g := newGate()
	g.open()
	return hiddenBy(g, text, echo)
}

func hiddenBy(g *gate, text string, echo Echo) *prompt {
	p := newPrompt(echo, g)
	p.text = text
	return p
}
