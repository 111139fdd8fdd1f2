package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/luks2"
	"luksmith/tokens"
)

// errOfOwnText wraps two errors and has its own words, as fmt.Errorf with two
// %w: it is one line.
var errOfOwnText = fmt.Errorf("%w while %w", tokens.ErrBusy, fs.ErrNotExist)

func TestErrorMessages(t *testing.T) {
	plain := errors.New("reading header of /dev/sda2: checksum mismatch")
	hinted := tokens.WithHint(plain, "cryptenroll backup /dev/sda2")
	token := &tokens.TokenError{ID: 3, Type: "systemd-fido2", Err: tokens.ErrNoDevice}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"nothing", nil, ""},
		{"plain", plain, "x: error: reading header of /dev/sda2: checksum mismatch\n"},
		{"own hint", fmt.Errorf("opening: %w", hinted), "x: error: opening: reading header of /dev/sda2: checksum mismatch\nx: hint: cryptenroll backup /dev/sda2\n"},
		{"default hint", token, "x: error: token 3 (systemd-fido2): security device not present\nx: hint: plug the security device in and try again\n"},
		{"own hint replaces the default", tokens.WithHint(token, "do this"), "x: error: token 3 (systemd-fido2): security device not present\nx: hint: do this\n"},
		{"joined", errors.Join(errors.New("a"), errors.New("b"), errors.New("a")), "x: error: a\nx: error: b\n"},
		{"joined in context", fmt.Errorf("unlocking: %w", errors.Join(errors.New("a"), fmt.Errorf("then: %w", errors.Join(errors.New("b"), errors.New("c"))))),
			"x: error: unlocking: a\nx: error: unlocking: then: b\nx: error: unlocking: then: c\n"},
		{"two wrapped in one text", errOfOwnText, "x: error: security device is in use while file does not exist\nx: hint: end the program that uses the security device (gpg-agent, pcscd, a browser) and try again\n"},
		{"three hints", errors.Join(tokens.WithHint(errors.New("a"), "1"), tokens.WithHint(errors.New("b"), "2"), tokens.WithHint(errors.New("c"), "3")),
			"x: error: a\nx: error: b\nx: error: c\nx: hint: 1\nx: hint: 2\n"},
		{"same hint twice", errors.Join(tokens.WithHint(errors.New("a"), "1"), tokens.WithHint(errors.New("b"), "1")), "x: error: a\nx: error: b\nx: hint: 1\n"},
		{"controls", tokens.WithHint(errors.New("label \x1b[2J\u202e"), "\x07"), "x: error: label \\x1b[2J\\u202e\nx: hint: \\x07\n"},
	} {
		var b bytes.Buffer
		m := Messages{Name: "x", Err: StreamTo(&b)}
		m.Error(c.err)
		if b.String() != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, b.String(), c.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	var b bytes.Buffer
	m := Messages{Name: "x", Err: StreamTo(&b)}
	m.Err.Colour = true
	m.Warning("mode 0644\nis too open")
	m.WarnError(tokens.WithHint(errors.New("a"), "h"))
	want := "x: \x1b[33mwarning:\x1b[0m mode 0644\\nis too open\nx: \x1b[33mwarning:\x1b[0m a\nx: \x1b[34mhint:\x1b[0m h\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("other"), 1},
		{tokens.ErrUsage, 1},
		{&tokens.TokenError{Err: tokens.ErrWrongPIN}, 2},
		{tokens.ErrWrongKey, 2},
		{fmt.Errorf("allocating: %w", unix.ENOMEM), 3},
		{fmt.Errorf("x: %w", ErrWrongDevice), 4},
		{luks2.ErrNotLUKS2, 4}, {luks2.ErrLUKS1, 4}, {luks2.ErrBusy, 5}, {luks2.ErrNoMemory, 3}, {luks2.ErrNoKey, 2},
		{&fs.PathError{Op: "open", Err: unix.EBUSY}, 5},
		{tokens.ErrNoDevice, 6},
		{&tokens.PolicyError{}, 7},
		{tokens.ErrLocked, 8},
		{fmt.Errorf("wiping slot 0: %w: %w", ErrRefused, tokens.ErrWrongKey), 9},
		{&luks2.NoKeyError{Tried: []int{0}}, 2},
		{&luks2.NoKeyError{Skipped: []*luks2.KeyslotError{{Err: &luks2.CostError{Machine: true}}}}, 3},
		{fmt.Errorf("x: %w", &luks2.FormatError{}), 4},
		{tokens.ErrDuplicate, 9},
		{context.DeadlineExceeded, 10},
		{&SignalError{unix.SIGTERM}, 11},
		{context.Canceled, 11},
	} {
		if got := ExitStatus(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
		if got := ExitStatusAs("/usr/bin/systemd-cryptenroll", c.err); got != min(c.want, 1) {
			t.Errorf("%v as systemd: %d", c.err, got)
		}
		if got := ExitStatusAs("./cryptenroll", c.err); got != c.want {
			t.Errorf("%v as cryptenroll: %d", c.err, got)
		}
	}
}

func TestExitStatusOfTheCommandsOwnErrors(t *testing.T) {
	own := Exit{fs.ErrInvalid, ExitBusy}
	if got := ExitStatus(fs.ErrInvalid, own); got != ExitBusy {
		t.Errorf("%d", got)
	}
	if got := ExitStatus(errors.Join(tokens.ErrWrongPIN, fs.ErrInvalid, tokens.ErrTimeout), own); got != ExitTimedOut {
		t.Errorf("%d", got)
	}
	if got := ExitStatusAs("systemd-cryptsetup", fs.ErrInvalid, own); got != ExitFailure {
		t.Errorf("%d", got)
	}
}

// TestExitStatusOfSeveralSources joins every pair of failures.
func TestExitStatusOfSeveralSources(t *testing.T) {
	order := []error{tokens.ErrCancelled, tokens.ErrTimeout, tokens.ErrBusy, ErrWrongDevice, unix.ENOMEM, tokens.ErrLocked, tokens.ErrPolicy,
		tokens.ErrWrongKey, tokens.ErrNoDevice, errors.New("other")}
	statuses := []int{11, 10, 5, 4, 3, 8, 7, 2, 6, 1}
	for i, first := range order {
		for j, second := range order {
			err := fmt.Errorf("unlocking: %w", errors.Join(&tokens.TokenError{Err: first}, second))
			if got := ExitStatus(err); got != statuses[min(i, j)] {
				t.Errorf("%v and %v: %d, want %d", first, second, got, statuses[min(i, j)])
			}
		}
	}
}

func TestCalledAsSystemd(t *testing.T) {
	for argv0, want := range map[string]bool{"systemd-cryptenroll": true, "/lib/systemd/systemd-cryptsetup": true, "cryptenroll": false, "": false} {
		if CalledAsSystemd(argv0) != want {
			t.Errorf("%q", argv0)
		}
	}
}

func TestLevelsOfSystemd(t *testing.T) {
	for text, want := range map[string]Level{"": LevelInfo, "debug": LevelInfo, "info": LevelInfo, "6": LevelInfo, "notice": LevelNotice, "warning": LevelWarning,
		"4": LevelWarning, "err": LevelError, "emerg": LevelNothing, "0": LevelNothing, "rubbish": LevelInfo, "console:err,kmsg:debug": LevelError,
		"kmsg:err": LevelInfo, "warning,kmsg:debug": LevelWarning} {
		if got := ParseLevel(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	var b strings.Builder
	m := &Messages{Name: "x", Err: StreamTo(&b), Level: LevelError}
	m.Warning("w")
	m.WarnError(errors.New("w"))
	m.Plain(LevelInfo, "w")
	m.Error(ErrSaid)
	m.Error(errors.New("seen"))
	if b.String() != "x: error: seen\n" {
		t.Errorf("%q", b.String())
	}
}
