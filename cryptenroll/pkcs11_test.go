package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// faultModule is the PKCS#11 module in which something is wrong.
var faultModule testenv.FaultModule

// cmdCard makes a PKCS#11 token of software with an RSA and an elliptic-curve key:
// `card LABEL PIN`. Programs of the script find it through p11-kit.
func cmdCard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: card LABEL PIN")
	}
	d := devicesOf(ts)
	if d.hsm == nil {
		installFor(ts, "luksmith-pkcs11")
		d.hsm = testenv.NewSoftHSM(d.t)
		setenv(ts, d.hsm.Env)
	}
	addCard(d.t, d.hsm, testenv.Token{Label: args[0], PIN: args[1]})
}

// addCard makes a token with the keys 01 "rsa" and 02 "ec".
func addCard(t testing.TB, store *testenv.SoftHSM, token testenv.Token) {
	t.Helper()
	store.AddToken(t, token)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	store.AddKey(t, token, testenv.Key{ID: "01", Label: "rsa", Private: r})
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	store.AddKey(t, token, testenv.Key{ID: "02", Label: "ec", Private: e})
}

func setenv(ts *testscript.TestScript, env []string) {
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		ts.Setenv(name, value)
	}
}

// cmdModule makes another PKCS#11 module on top of the cards: `module spy` sets $MODULE
// to OpenSC's, which notes every call in spy.log; `module FAULT` to one that has this
// fault.
func cmdModule(ts *testscript.TestScript, neg bool, args []string) {
	d := devicesOf(ts)
	switch {
	case neg || len(args) != 1 || d.hsm == nil:
		ts.Fatalf("usage, after card: module spy | FAULT")
	case args[0] == "spy":
		setenv(ts, []string{"MODULE=" + testenv.Spy(d.t), "PKCS11SPY=" + d.hsm.Module, "PKCS11SPY_OUTPUT=" + ts.MkAbs("spy.log")})
	default:
		setenv(ts, faultModule.Env(d.t, d.hsm, args[0]))
		ts.Setenv("MODULE", faultModule.Path(d.t))
	}
}

// desk is the card of the terminal tests.
var desk = testenv.Token{Label: "Desk card", PIN: "1234"}

// sitWithCard is sit with the helper installed and a card plugged in.
func sitWithCard(t *testing.T, env []string, args ...string) *person {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install(t, "luksmith-pkcs11", exe)
	return sitWith(t, env, args...)
}

// newDesk makes the card and returns the environment in which it is plugged in.
func newDesk(t *testing.T) (store *testenv.SoftHSM, env []string) {
	t.Helper()
	store = testenv.NewSoftHSM(t)
	addCard(t, store, desk)
	return store, store.Env
}

func TestPersonEnrollsASmartcard(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	_, env := newDesk(t)
	p := sitWithCard(t, env, "--pkcs11-token-uri=pkcs11:object=rsa", "--compat=257", v.Path)
	p.sees(`current passphrase for disk .*:`)
	p.types("hunter2\r")
	p.sees(`PIN of Desk card: `)
	p.types("0000\r")
	p.sees(`Wrong PIN, please try again\.`)
	p.sees(`PIN of Desk card: `)
	p.types("1234\r")
	p.sees(`warning: Made for systemd before 261: the key is encrypted with PKCS#1 v1\.5`)
	p.sees(`none pkcs11-uri=auto`)
	p.sees(`Enrolled "Desk card", keyslot 1 of .*: PKCS#11, Desk card, RSA-2048 \(PKCS#1 v1\.5\), PIN`)
	p.ends(0)

	p = sitWithCard(t, env, "test", "--all", v.Path)
	p.sees(`PIN of Desk card: `)
	p.types("1234\r")
	p.sees(`passphrase for disk .*:`)
	p.types("hunter2\r")
	p.ends(0)
	if out := p.stdout.String(); strings.Count(out, " yes ") != 2 {
		t.Errorf("test --all prints:\n%s", out)
	}
	for _, secret := range []string{"1234", "0000", "hunter2"} {
		if strings.Contains(p.screen.String(), secret) {
			t.Errorf("%s is on the terminal", secret)
		}
	}
}

// enrolDesk puts a keyslot for the card on a volume.
func enrollDesk(t *testing.T, env []string, path, key string) {
	t.Helper()
	p := sitWithCard(t, append(slices.Clone(env), "PASSWORD=hunter2", "PIN="+desk.PIN), "--pkcs11-token-uri=pkcs11:object="+key, "--compat=257", path)
	p.sees(`Enrolled .*keyslot \d of`)
	p.ends(0)
}

// TestPersonIsAskedForThePassphraseWhenTheCardFails: one line says why.
func TestPersonIsAskedForThePassphraseWhenTheCardFails(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	store, env := newDesk(t)
	enrollDesk(t, env, v.Path, "ec")
	for fault, want := range map[string]string{
		"crash-initialize": `warning: .*ended unexpectedly.*SIGSEGV`,
		"fail-initialize":  `warning: starting PKCS#11 module .*CKR_GENERAL_ERROR`,
		"locked":           `warning: keyslot 1 \(pkcs11, "Desk card"\): PIN of Desk card: security device is locked`,
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			p := sitWithCard(t, faultModule.Env(t, store, fault), "test", "--pkcs11-module="+faultModule.Path(t), v.Path)
			p.sees(want)
			p.sees(`current passphrase for disk .*: `)
			p.types("hunter2\r")
			p.ends(0)
			if n := strings.Count(p.text(), "cryptenroll: "); n != 1 && fault != "locked" { // with a hint
				t.Errorf("%d messages:\n%s", n, p.text())
			}
			if !strings.HasPrefix(p.stdout.String(), "keyslot 0 ") {
				t.Errorf("prints %q", p.stdout.String())
			}
		})
	}
}

// TestCardThatIsPulledOutWhileThePINIsTyped leaves the passphrase.
func TestCardThatIsPulledOutWhileThePINIsTyped(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	store, env := newDesk(t)
	enrollDesk(t, env, v.Path, "ec")
	p := sitWithCard(t, faultModule.Env(t, store, "removed-at-login"), "test", "--pkcs11-module="+faultModule.Path(t), v.Path)
	p.sees(`PIN of Desk card, or Enter for the passphrase: `)
	p.types("1234\r")
	p.sees(`warning: keyslot 1 .*security device not present: logging in: CKR_DEVICE_REMOVED`)
	p.sees(`current passphrase for disk .*: `)
	p.types("hunter2\r")
	p.ends(0)
}

// TestHeaderCannotAnswerForThePerson has a PIN and a module in the URI of the header.
func TestHeaderCannotAnswerForThePerson(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	_, env := newDesk(t)
	enrollDesk(t, env, v.Path, "ec")
	rewriteToken(t, v.Path, `type=private`, `type=private?module-path=`+filepath.Join(t.TempDir(), "evil.so")+`&pin-value=1234`)
	p := sitWithCard(t, env, "test", "--unlock-pkcs11-uri=auto", v.Path)
	p.sees(`PIN of Desk card: `)
	p.types("1234\r")
	p.ends(0)
}

// rewriteToken changes the text of token 0 with cryptsetup.
func rewriteToken(t *testing.T, image, before, after string) {
	t.Helper()
	text := testenv.Run(t, "cryptsetup", "token", "export", "--token-id", "0", image)
	file := filepath.Join(t.TempDir(), "token")
	if !strings.Contains(text, before) {
		t.Fatalf("no %q in %s", before, text)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, before, after)), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", "token", "import", "--token-replace", "--token-id", "0", "--json-file", file, image)
}
