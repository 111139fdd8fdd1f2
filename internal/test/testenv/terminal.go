package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Terminal is a real terminal, of tmux, without anything of its user's configuration.
type Terminal struct {
	t      testing.TB
	socket string
}

// NewTerminal runs a program in a terminal until the end of the test. env is added to the
// environment of this process.
func NewTerminal(t testing.TB, columns, rows int, env []string, args ...string) *Terminal {
	t.Helper()
	Need(t, "tmux")
	dir, err := os.MkdirTemp("", "tmux.") // not t.TempDir: its path may be longer than a socket's may be
	if err != nil {
		t.Fatal(err)
	}
	m := &Terminal{t, filepath.Join(dir, "tmux")}
	t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", m.socket, "kill-server").Run()
		_ = os.RemoveAll(dir)
	})
	command := []string{"new-session", "-d", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows)}
	for _, e := range env {
		command = append(command, "-e", e)
	}
	m.tmux(append(command, args...)...)
	return m
}

// tmux runs a command of tmux and returns what that prints.
func (m *Terminal) tmux(args ...string) string {
	m.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-u", "-S", m.socket, "-f", "/dev/null"}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// Type types a text; a tab or carriage return is the key.
func (m *Terminal) Type(text string) {
	m.t.Helper()
	m.tmux("send-keys", "-l", "--", text)
}

// Clear gives up what was typed at a shell's prompt, and leaves only that on the screen.
func (m *Terminal) Clear(prompt string) {
	m.t.Helper()
	const giveUp, clear = "\x15", "\f" // Ctrl-U, Ctrl-L
	m.await("nothing but "+prompt, func(shown string) bool { return strings.TrimSpace(shown) == prompt }, func() { m.Type(giveUp + clear) })
}

// Await waits until the terminal shows all of the texts, wherever they are.
func (m *Terminal) Await(texts ...string) {
	m.t.Helper()
	for _, text := range texts {
		m.await(text, func(shown string) bool { return strings.Contains(shown, text) }, func() {})
	}
}

// await waits until what is shown is right, and does something twice a second until then.
func (m *Terminal) await(what string, right func(shown string) bool, again func()) {
	m.t.Helper()
	for tries := range 600 {
		shown := m.tmux("capture-pane", "-p", "-J")
		if right(shown) {
			return
		}
		if tries == 599 {
			m.t.Fatalf("the terminal does not show %s:\n%s", what, strings.TrimRight(shown, "\n"))
		}
		if tries%10 == 0 {
			again()
		}
		time.Sleep(50 * time.Millisecond)
	}
}
