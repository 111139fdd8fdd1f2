package testenv

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// Seat is a pseudo-terminal with somebody at it who knows all answers.
type Seat struct {
	Columns, Rows int
	Answers       []Answer // the first that fits is taken
}

// Answer is what is typed at a question.
type Answer struct {
	Question string   // regular expression for its last words; lines are joined by blanks
	Keys     []string // one after the other; the last one is typed again and again
}

// Capture is what a program wrote to its terminal.
type Capture struct {
	Raw     string
	Status  int
	columns int
}

// Screen is what stands on the terminal in the end, with what scrolled out above.
func (c *Capture) Screen() string { return Render(c.Raw, c.columns) }

// Text is the same as somebody copies it: a line that the terminal had to break is one.
func (c *Capture) Text() string { return Render(c.Raw, math.MaxInt) }

// captureLimit is how long a program may take.
const captureLimit = time.Minute

// Capture starts a program at the terminal, answers until it ends and returns what came.
// Where cmd.Stdout or cmd.Stderr is set, that goes elsewhere.
func (s Seat) Capture(cmd *exec.Cmd) (*Capture, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer master.Close()
	err = errors.Join(pty.Setsize(master, &pty.Winsize{Rows: uint16(s.Rows), Cols: uint16(s.Columns)}), sitDown(cmd, slave))
	if err := errors.Join(err, slave.Close()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), captureLimit)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	w := &watcher{keys: master, columns: s.Columns, answers: s.Answers, asked: make([]int, len(s.Answers)), given: make([]int, len(s.Answers))}
	w.watch()
	_ = cmd.Wait()
	c := &Capture{Raw: w.raw.String(), Status: cmd.ProcessState.ExitCode(), columns: s.Columns}
	if c.Status < 0 {
		return nil, errors.New(cmd.String() + ": " + cmd.ProcessState.String() + "; the terminal shows\n" + c.Screen())
	}
	return c, nil
}

// sitDown starts a program whose controlling terminal is this.
func sitDown(cmd *exec.Cmd, tty *os.File) error {
	cmd.Stdin = tty
	if cmd.Stdout == nil {
		cmd.Stdout = tty
	}
	if cmd.Stderr == nil {
		cmd.Stderr = tty
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return cmd.Start()
}

// watcher reads a terminal and types.
type watcher struct {
	keys    *os.File
	columns int
	answers []Answer
	asked   []int // how often the question of each stood there when one was given
	given   []int
	raw     strings.Builder
	typing  sync.WaitGroup
}

// watch reads until nobody has the terminal open.
func (w *watcher) watch() {
	b := make([]byte, 4096)
	for {
		n, err := w.keys.Read(b)
		w.raw.Write(b[:n])
		w.answer()
		if err != nil {
			w.typing.Wait()
			return
		}
	}
}

// answer types if a question stands at the end that was not there before. A prompt is
// drawn again at each key, but stands on the screen once.
func (w *watcher) answer() {
	text := strings.TrimSuffix(Render(w.raw.String(), w.columns), "(press TAB for no echo)")
	text = strings.TrimSuffix(strings.Join(strings.Fields(text), " "), " >") // where the answer has a line of its own
	for i, a := range w.answers {
		asked := regexp.MustCompile(a.Question).FindAllStringIndex(text, -1)
		if len(asked) <= w.asked[i] || asked[len(asked)-1][1] != len(text) {
			continue
		}
		keys := a.Keys[min(w.given[i], len(a.Keys)-1)]
		w.given[i]++
		for j, other := range w.answers {
			w.asked[j] = len(regexp.MustCompile(other.Question).FindAllStringIndex(text, -1))
		}
		w.typing.Go(func() {
			time.Sleep(50 * time.Millisecond) // the prompt drops what was typed before it
			_, _ = w.keys.WriteString(keys)
		})
		return
	}
}
