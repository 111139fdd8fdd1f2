package main

import (
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
)

// TestWaitingForALockIsSaid: another program that had the header locked kept a person
// waiting without a word. The line goes when the wait is over, and a log has none.
func TestWaitingForALockIsSaid(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	release := hold(t, v.Path)
	p := sit(t, "label", v.Path, "0", "x")
	p.sees(`Waiting for another program, which has the header of `)
	release()
	p.sees(`Named: keyslot 0 \(password, "x"\)`)
	p.ends(0)
	erased(t, p, "Waiting for another program")
}

// TestSlowKeyslotIsSaid: seconds of Argon2 passed without a word.
func TestSlowKeyslotIsSaid(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) {
		o.KDF = luks2.KDF{Type: luks2.KDFPBKDF2, Hash: "sha256", Iterations: 8_000_000}
	}))
	p := sit(t, "test", v.Path)
	p.sees(`current passphrase for disk`)
	p.types("hunter2\r")
	p.sees(`Checking the passphrase takes a while by design: `)
	_ = p.cmd.Wait() // for as long as a busy machine takes
	<-p.shown
	if !strings.Contains(p.stdout.String(), "keyslot 0 (password) opens") {
		t.Errorf("%s\n%s", p.stdout.String(), p.text())
	}
	erased(t, p, "Checking the passphrase takes")
	if r := runCommand(t, alone(t, []string{"PASSWORD=hunter2"}, "test", v.Path)); r.status != 0 || strings.Contains(r.stderr, "Checking") {
		t.Errorf("in a pipe: status %d\n%s", r.status, r.stderr)
	}
}

// erased wants a line to have been taken away again.
func erased(t *testing.T, p *person, line string) {
	t.Helper()
	_, after, ok := strings.Cut(p.screen.String(), line)
	if !ok || !strings.Contains(after, "\x1b[J") && !strings.Contains(after, "\x1b[K") {
		t.Errorf("%q stays:\n%q", line, p.screen.String())
	}
}
