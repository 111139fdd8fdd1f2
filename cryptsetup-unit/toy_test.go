package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/all"
)

// withToy are the token types and one that nothing here knows of.
func withToy() tokens.Set { return append(all.New(), &tokentest.Toy{}) }

// toyVolume has a keyslot of the toy, called "bear".
func toyVolume(t *testing.T) *luks2test.Volume {
	t.Helper()
	v := luks2test.New(t, luks2test.WithPassphrase(rightPassphrase))
	toy := &tokentest.Toy{Device: "present"}
	e, err := toy.Enroll(t.Context(), &tokens.EnrollRequest{Label: "bear"}, tokentest.NewUI(t, tokentest.Typed(toyPIN)...))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	v.Enroll(t, string(e.Passphrase.Bytes()), luks2.Token{Type: toy.Type(), Raw: e.Token})
	return v
}

// TestTypeThatNobodyKnowsOfIsAllThere: a token type is one folder and one line in
// tokens/all, also for attach, crypttab lint, crypttab set and initrd needs.
func TestTypeThatNobodyKnowsOfIsAllThere(t *testing.T) {
	v := toyVolume(t)
	bench := func(t *testing.T) *bench {
		b := newBench(t)
		b.types, b.newHandlers = withToy, withToy
		return b
	}
	t.Run("attach", func(t *testing.T) {
		for _, options := range []string{"toy-device=present", "toy-device=present,tries=1,key-slot=1"} {
			b := bench(t)
			asked := b.agent(t, "+"+toyPIN)
			r, err := b.run(t, "vol", v.Path, "-", "password-cache=no,"+options)
			if err != nil || r.Opened.String() != `toy token, keyslot 1 (toy, "bear"), token 0` {
				t.Fatalf("%s: %v, %s", options, err, r.Opened)
			}
			if q := asked()[0]; !strings.HasPrefix(q["Message"], "PIN of the toy") || q["Id"] != "" {
				t.Errorf("asked: %v", q)
			}
		}
	})
	t.Run("absent", func(t *testing.T) {
		b := bench(t)
		_, err := b.run(t, "vol", v.Path, "-", "headless,toy-device=elsewhere,token-timeout=100ms")
		if cli.ExitStatus(err) != cli.ExitTimedOut || !strings.Contains(err.Error(), "toy token: ") {
			t.Errorf("%v", err)
		}
	})
	t.Run("passphrase beside it", func(t *testing.T) {
		b := bench(t)
		b.patience = 50 * time.Millisecond
		b.agent(t, "+"+rightPassphrase)
		if r, err := b.run(t, "vol", v.Path, "-", "password-cache=no,toy-device=elsewhere"); err != nil || r.Opened.By != "passphrase from "+string(askpass.FromAgent) {
			t.Errorf("%v, %+v", err, r)
		}
	})
	t.Run("lint", func(t *testing.T) { lintToy(t, bench, v.Path) })
	t.Run("needs", func(t *testing.T) {
		b := bench(t)
		t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
		if _, _, missing, err := b.needs(b.file(t, "etc/crypttab", "vol "+v.Path+" - toy-device=present\n"), false); err != nil || len(missing) > 0 {
			t.Errorf("%v, %q", err, missing)
		}
	})
}

// lintToy looks at lines about the toy.
func lintToy(t *testing.T, bench func(*testing.T) *bench, path string) {
	for line, want := range map[string]string{
		"v " + path + " - toy-device=present":        ": 1 volume, no mistakes\n",
		"v " + path + " - toy=auto":                  `did you mean "toy-device=auto"?`,
		"v " + newImage(t) + " - toy-device=present": "has no test-toy token",
	} {
		b := bench(t)
		crypttab := b.file(t, "etc/crypttab", line+"\n")
		err := b.lint([]string{crypttab}, &lintOptions{})
		if out := b.messages.String(); !strings.Contains(out, want) || (err == nil) != strings.Contains(want, "no mistakes") {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	b := bench(t)
	file := b.file(t, "etc/crypttab", "v "+path+"\n")
	if err := b.setCrypttab(path, []string{"toy-device=present"}, &setOptions{file: file}); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Clean(file)); !strings.Contains(string(text), "toy-device=present") {
		t.Errorf("crypttab set: %s", text)
	}
}
