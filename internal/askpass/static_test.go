package askpass

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// fakeEnvironment is an Environment with values that were never variables.
func fakeEnvironment(pairs ...string) *Environment {
	e := &Environment{values: map[string]secret.Secret{}}
	for i := 0; i < len(pairs); i += 2 {
		e.values[pairs[i]] = secret.Copy([]byte(pairs[i+1]))
	}
	return e
}

// recorder is a place for messages.
func recorder() (*cli.Messages, *bytes.Buffer) {
	var b bytes.Buffer
	return &cli.Messages{Name: "x", Err: cli.StreamTo(&b)}, &b
}

func write(t *testing.T, dir, name, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

var pinPrompt = tokens.Prompt{Text: "PIN of the key", Credential: "tpm2-pin"}

func ask(t *testing.T, a *Asker, p tokens.Prompt) (string, error) {
	t.Helper()
	s, err := a.Ask(t.Context(), p)
	defer s.Wipe()
	return string(s.Bytes()), err
}

func TestStaticSources(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write(t, dir, "cryptenroll.tpm2-pin", "credential", 0o600)
	write(t, dir, "cryptenroll.new-tpm2-pin", "new credential", 0o600)
	write(t, dir, "cryptenroll.passphrase", "with end\n", 0o600)
	write(t, dir, "cryptsetup.passphrase", "one\x00two\x00", 0o600)
	file := write(t, dir, "pin", "file\n", 0o600)
	newFile := write(t, dir, "newpin", "new file\n", 0o600)
	full := Options{Prefix: "cryptenroll", PINFile: file, NewPINFile: newFile, Headless: true,
		Environment: fakeEnvironment("PIN", "variable", "NEWPIN", "new variable", "PASSWORD", "passphrase", "NEWPASSWORD", "new passphrase")}
	noFile := full
	noFile.PINFile, noFile.NewPINFile = "", ""
	bare := Options{Prefix: "cryptenroll", Headless: true}
	passphrase := PassphraseQuestion{Kind: Passphrase, Disk: "x"}.Question().Prompt
	for _, c := range []struct {
		name string
		o    Options
		p    tokens.Prompt
		want string
	}{
		{"PIN file first", full, pinPrompt, "file"},
		{"then variable", noFile, pinPrompt, "variable"},
		{"then credential", bare, pinPrompt, "credential"},
		{"new PIN file", full, tokens.Prompt{Credential: "tpm2-pin", New: true}, "new file"},
		{"new PIN variable", noFile, tokens.Prompt{Credential: "tpm2-pin", New: true}, "new variable"},
		{"new PIN credential", bare, tokens.Prompt{Credential: "tpm2-pin", New: true}, "new credential"},
		{"passphrase variable, not the PIN's file", full, passphrase, "passphrase"},
		{"passphrase credential with all its bytes", bare, passphrase, "with end\n"},
		{"new passphrase", noFile, tokens.Prompt{Credential: "passphrase", New: true}, "new passphrase"},
		{"first of a list", Options{Prefix: "cryptsetup", Headless: true}, passphrase, "one"},
		{"no $PASSWORD at boot", Options{Prefix: "cryptsetup", Headless: true, Environment: full.Environment}, passphrase, "one"},
	} {
		got, err := ask(t, New(c.o), c.p)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	answer, err := New(Options{Prefix: "cryptsetup", Headless: true}).Passphrase(t.Context(), PassphraseQuestion{Kind: Passphrase})
	if err != nil || len(answer.Secrets) != 2 || string(answer.Secrets[1].Bytes()) != "two" || answer.Source != FromCredential || answer.Name != "cryptsetup.passphrase" {
		t.Errorf("list: %+v, %v", answer, err)
	}
	answer.Wipe()
}

// TestStaticSourcesAreUsedOnce: a PIN that was wrong once is not spent again.
func TestStaticSourcesAreUsedOnce(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write(t, dir, "cryptenroll.tpm2-pin", "credential", 0o600)
	a := New(Options{Prefix: "cryptenroll", PINFile: write(t, dir, "pin", "file", 0o600), Environment: fakeEnvironment("PIN", "variable"), Headless: true})
	retry := pinPrompt
	retry.Attempt = 1
	if got, err := ask(t, a, retry); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("second attempt: %q, %v", got, err)
	}
	for _, want := range []string{"file", "variable", "credential"} {
		if got, err := ask(t, a, pinPrompt); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	_, err := ask(t, a, pinPrompt)
	var hinted interface{ Hint() string }
	if !errors.Is(err, tokens.ErrNoPrompt) || cli.ExitStatus(err) != cli.ExitNoKey || !errors.As(err, &hinted) ||
		hinted.Hint() != "give it by --pin-file=FILE, credential cryptenroll.tpm2-pin or $PIN" {
		t.Errorf("%v", err)
	}
	other := pinPrompt
	other.Credential = ""
	if _, err := ask(t, a, other); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("question without a name: %v", err)
	}
}

func TestBadStaticSources(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "missing"), "no such file"},
		{"folder", dir, "it is a folder"},
		{"empty", write(t, dir, "empty", "", 0o600), "the file is empty"},
		{"only a line end", write(t, dir, "line", "\n", 0o600), "the file is empty"},
		{"too long", write(t, dir, "long", strings.Repeat("x", maxStatic+1), 0o600), "more than 65536 bytes"},
		{"endless", "/dev/zero", "more than 65536 bytes"},
		{"FIFO without writer", fifo, "the file is empty"},
	} {
		started := time.Now()
		_, err := ask(t, New(Options{Prefix: "cryptenroll", PINFile: c.path, Headless: true}), pinPrompt)
		if err == nil || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.want) || errors.Is(err, tokens.ErrNoPrompt) {
			t.Errorf("%s: %v, want path and %q", c.name, err, c.want)
		}
		if time.Since(started) > patience {
			t.Errorf("%s takes %v", c.name, time.Since(started))
		}
	}
}

func TestPINFromAPipe(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		time.Sleep(10 * time.Millisecond)
		_, _ = w.WriteString("piped\n")
		_ = w.Close()
	}()
	path := fmt.Sprintf("/proc/self/fd/%d", r.Fd())
	if got, err := ask(t, New(Options{PINFile: path}), pinPrompt); err != nil || got != "piped" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSilentPipeCanBeInterrupted: nobody writes into the pipe.
func TestSilentPipeCanBeInterrupted(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = New(Options{PINFile: fmt.Sprintf("/proc/self/fd/%d", r.Fd())}).Ask(ctx, pinPrompt)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestReadableByEverybodyIsWarnedOf(t *testing.T) {
	t.Parallel()
	messages, out := recorder()
	path := write(t, t.TempDir(), "pin", "1234", 0o644)
	if got, err := ask(t, New(Options{PINFile: path, Messages: messages}), pinPrompt); err != nil || got != "1234" {
		t.Errorf("%q, %v", got, err)
	}
	if want := "x: warning: " + path + " is readable by everybody (mode 0644)\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// TestBadCredentialDoesNotBlockThePrompt: the credential is unusable, a person is
// there.
func TestBadCredentialDoesNotBlockThePrompt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write(t, dir, "cryptsetup.tpm2-pin", "", 0o600)
	r := newRig(t)
	messages, out := recorder()
	a := New(Options{Prefix: "cryptsetup", Console: r.console, Messages: messages})
	go func() {
		r.shows(") ")
		r.types("typed\n")
	}()
	if got, err := ask(t, a, pinPrompt); err != nil || got != "typed" {
		t.Errorf("%q, %v", got, err)
	}
	if want := "x: warning: reading credential " + dir + "/cryptsetup.tpm2-pin: the file is empty; asking instead\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	// A PIN file that was used before makes no difference.
	b := New(Options{Prefix: "cryptsetup", Console: r.console, PINFile: write(t, dir, "pin", "file", 0o600)})
	if got, err := ask(t, b, pinPrompt); err != nil || got != "file" {
		t.Errorf("%q, %v", got, err)
	}
	r.shows("PIN of the key:\n")
	go func() {
		r.shows(") ")
		r.types("again\n")
	}()
	if got, err := ask(t, b, pinPrompt); err != nil || got != "again" {
		t.Errorf("%q, %v", got, err)
	}
	_, err := ask(t, New(Options{Prefix: "cryptsetup", Headless: true}), pinPrompt)
	if err == nil || !strings.Contains(err.Error(), "the file is empty") {
		t.Errorf("headless: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "relative")
	if _, err := ask(t, New(Options{Prefix: "cryptsetup", Headless: true}), pinPrompt); err == nil || !strings.Contains(err.Error(), "relative") {
		t.Errorf("relative folder: %v", err)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"": nil, "a": {"a"}, "a\x00": {"a"}, "a\x00b": {"a", "b"}, "a\x00\x00b\x00": {"a", "", "b"}, "\x00": {""}, "\x00\x00": {"", ""},
	} {
		list := splitList([]byte(in))
		var got []string
		for _, s := range list {
			got = append(got, string(s.Bytes()))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
		joined := joinList(list)
		if want := strings.Join(want, "\x00"); string(joined.Bytes()) != want {
			t.Errorf("%q joined again: %q, want %q", in, joined.Bytes(), want)
		}
		joined.Wipe()
		secret.WipeAll(list)
	}
}

func TestStrength(t *testing.T) {
	t.Parallel()
	weak := []string{"", "password", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjkl", "12345678901234567890",
		"hunter2hunter2", "correct horse battery", "Summer2026!"}
	strong := []string{"correct horse battery staple window", "k7#Qz9!mWp2x", "tTq93bVx81Lm", "zebra-violin-cactus-melon-orbit"}
	for _, text := range weak {
		if strength([]byte(text)) >= enoughForPassphrase {
			t.Errorf("%q has %.0f bits", text, strength([]byte(text)))
		}
	}
	for _, text := range strong {
		if strength([]byte(text)) < enoughForPassphrase {
			t.Errorf("%q has %.0f bits", text, strength([]byte(text)))
		}
	}
	for pin, good := range map[string]bool{"": false, "1234": false, "123456": false, "111111": false, "295141": true, "x7q9": true} {
		s := secret.Copy([]byte(pin))
		if got := strengthHint(s, true) == ""; got != good {
			t.Errorf("PIN %q: %q", pin, strengthHint(s, true))
		}
		s.Wipe()
	}
}
