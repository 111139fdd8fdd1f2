package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

func TestRecoveryKeyTypedSloppily(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	key := enrollRecoveryKey(t, v)
	for _, typed := range []string{key, strings.ToUpper(key), strings.ReplaceAll(key, "-", ""), strings.ReplaceAll(key, "-", " ")} {
		p := sit(t, "test", v.Path)
		p.sees(`passphrase or recovery key for disk`)
		p.types(typed + "\r")
		p.ends(0)
		if !strings.HasPrefix(p.stdout.String(), "keyslot 1 (recovery)") {
			t.Errorf("%q gives %q", typed, p.stdout.String())
		}
	}
	p := sit(t, "test", v.Path)
	p.sees(`recovery key for disk`)
	p.types("x" + key[1:] + "\r")
	p.sees(`warning: .*group 1`)
	p.sees(`recovery key for disk`)
	p.types("\x03")
	p.ends(11)
}

func TestRecoveryKeyIsTypedBackBeforeTheWipe(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	p := sit(t, "--recovery-key", "--recovery-confirm", "--wipe-slot=password", "--yes", v.Path)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	groups := p.sees(`Groups (\d) and (\d)`)
	p.types("wrong wrong\r")
	p.sees(`warning: two groups have 16 letters, you typed 10`)
	if strings.Contains(p.text(), "Wrong passphrase") {
		t.Error("the answer is called a wrong passphrase")
	}
	if !v.Opens(t, "hunter2") {
		t.Fatal("the old passphrase went before the key was confirmed")
	}
	key := strings.Split(strings.TrimSpace(p.stdout.String()), "-")
	p.sees(`Groups \d and \d`)
	p.types(key[groups[1][0]-'1'] + " " + key[groups[2][0]-'1'] + "\r")
	p.sees(`Wiped keyslot 0`)
	p.ends(0)
}

// TestOldRecoveryKeyStaysUntilTheNewOneIsTypedBack gives up at the question, and then
// answers it.
func TestOldRecoveryKeyStaysUntilTheNewOneIsTypedBack(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	out, err := commandLine(t, oldPassphrase, "--recovery-key", "--label=safe", v.Path).Output()
	if err != nil {
		t.Fatal(err)
	}
	old := strings.TrimSpace(string(out))
	p := sit(t, "recovery", "rotate", v.Path)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.sees(`Groups \d and \d`)
	p.types("\x03")
	p.sees(`the new keyslot 2 is removed again`)
	p.ends(11)
	if !v.Opens(t, old) || v.Opens(t, strings.TrimSpace(p.stdout.String())) {
		t.Fatal("a key that nobody confirmed took the place of the old one")
	}
	p = sit(t, "recovery", "rotate", v.Path)
	p.sees(`current passphrase`)
	p.types(old + "\r") // the old key opens once more
	groups := p.sees(`Groups (\d) and (\d)`)
	fresh := strings.TrimSpace(p.stdout.String())
	key := strings.Split(fresh, "-")
	p.types(key[groups[1][0]-'1'] + " " + key[groups[2][0]-'1'] + "\r")
	p.sees(`Wiped keyslot 1 \(recovery, "safe"\)`)
	p.ends(0)
	if v.Opens(t, old) || !v.Opens(t, fresh) {
		t.Error("the new key does not take the place of the old one")
	}
	p = sit(t, "recovery", "check", v.Path)
	p.sees(`recovery key`)
	p.types(old + "\r")
	p.sees(`(?i)wrong|again`)
	p.types(strings.ToUpper(strings.ReplaceAll(fresh, "-", " ")) + "\r")
	p.ends(0)
	if got := p.stdout.String(); !strings.HasPrefix(got, `keyslot 2 (recovery, "safe") opens `) || strings.Contains(got, key[0]) {
		t.Errorf("check says %q", got)
	}
}

// TestQRCodeIsOnTheScreenAtTheEnd replays what the command wrote in a real terminal
// emulator and lets a scanner look at the last screen.
func TestQRCodeIsOnTheScreenAtTheEnd(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	p := sit(t, "--recovery-key", "--label=safe", v.Path)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.ends(0)
	screen := testenv.Screen(t, []byte(p.screen.String()), 80, 24)
	for name, theme := range testenv.Themes {
		if got, want := testenv.ScanQR(t, testenv.Raster(t, screen, 80, 24, theme)), strings.TrimSpace(p.stdout.String()); got != want {
			t.Errorf("%s terminal: the scanner reads %q, the key is %q", name, got, want)
		}
	}
}

func TestSheetIsWrittenAndNeverOverwrites(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "pdftotext")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install(t, "luksmith-sheet", exe)
	v := luks2test.New(t)
	page := filepath.Join(t.TempDir(), "key.pdf")
	p := sit(t, "--recovery-key", "--recovery-sheet="+page, "--label=safe", v.Path)
	p.sees(`current passphrase`)
	p.types("hunter2\r")
	p.sees(`Written for printing`)
	p.ends(0)
	text := testenv.Run(t, "pdftotext", "-layout", page, "-")
	for _, want := range []string{v.UUID, strings.TrimSpace(p.stdout.String())[:8]} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	again := sit(t, "--recovery-key", "--recovery-sheet="+page, v.Path)
	again.sees(`not overwritten`)
	again.ends(1)
}

// TestRecoveryKeyThatIsNotTypedBackGoesAgain: nobody has it for certain, so that it
// opens nothing, and its page goes with it.
func TestRecoveryKeyThatIsNotTypedBackGoesAgain(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	for _, end := range []struct{ keys, says string }{
		{"\x03", `(interrupted|cancelled).*; the new keyslot 1 is removed again`},
		{strings.Repeat("wrong\r", maxTries), `refused: the recovery key was not typed back; the new keyslot 1 is removed again`},
	} {
		p := sit(t, "--recovery-key", "--recovery-confirm", "--wipe-slot=password", "--yes", v.Path)
		p.sees(`current passphrase`)
		p.types("hunter2\r")
		for _, line := range strings.SplitAfter(end.keys, "\r") {
			if line != "" {
				p.sees(`Groups \d and \d`)
				p.types(line)
			}
		}
		p.sees(end.says)
		_ = p.cmd.Wait()
		if h := readHeader(t, v); len(h.Keyslots) != 1 || len(h.Tokens) != 0 || !v.Opens(t, "hunter2") {
			t.Fatalf("keyslots %+v, tokens %+v", h.Keyslots, h.Tokens)
		}
	}
}
