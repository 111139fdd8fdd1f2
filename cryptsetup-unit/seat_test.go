package main

import (
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"luksmith/internal/askpass"
	"luksmith/internal/test/luks2test"
)

// seat is a terminal of 80 columns with somebody in front of it.
type seat struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	raw    strings.Builder
	seen   int // bytes of text() that were waited for
}

// newSeat opens a terminal, and a console on it.
func newSeat(t *testing.T) (*seat, *askpass.Console) {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	_ = pty.Setsize(master, &pty.Winsize{Rows: 24, Cols: 80})
	console, err := askpass.OpenConsole(tty.Name())
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{t: t, master: master}
	go s.watch()
	t.Cleanup(func() { console.Close(); _ = tty.Close(); _ = master.Close() })
	return s, console
}

func (s *seat) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.raw.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

var notText = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]|[\r\n]+|\(press TAB for no echo\)|🔐 `)

// text is what came so far, in one line.
func (s *seat) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(strings.Fields(notText.ReplaceAllString(s.raw.String(), " ")), " ")
}

// reads waits until text comes, after what was read before.
func (s *seat) reads(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		all := s.text()
		if i := strings.Index(all[min(s.seen, len(all)):], text); i >= 0 {
			s.seen += i + len(text)
			return
		}
	}
	s.t.Fatalf("%q did not come:\n%s", text, s.text())
}

func (s *seat) types(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// atTerminals gives a bench two terminals, as a machine with a screen and a serial line
// has, and no password agents.
func (b *bench) atTerminals(t *testing.T) (screen, serial *seat) {
	t.Helper()
	b.asking.AgentDir = ""
	screen, b.asking.Console = newSeat(t)
	serial, second := newSeat(t)
	b.asking.Consoles = []*askpass.Console{second}
	return screen, serial
}

// volumeNamed makes a volume with a passphrase of its own.
func volumeNamed(t *testing.T, name string) string {
	t.Helper()
	return luks2test.New(t, luks2test.WithPassphrase("open "+name)).Path
}

// inOrder fails unless the words are in the text one after the other, each once.
func inOrder(t *testing.T, text string, words ...string) {
	t.Helper()
	at := 0
	for _, w := range words {
		i := strings.Index(text[at:], w)
		if i < 0 {
			t.Errorf("%q is missing or out of order:\n%s", w, text)
			return
		}
		at += i + len(w)
	}
}
