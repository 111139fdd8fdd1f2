package pkcs11

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// spied returns a handler whose calls to SoftHSM go through OpenSC's pkcs11-spy,
// and the file in which it notes them.
func spied(t *testing.T, store *testenv.SoftHSM) (*Handler, string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "spy.log")
	env := append([]string{"PKCS11SPY=" + store.Module, "PKCS11SPY_OUTPUT=" + log}, store.Env...)
	return &Handler{Module: testenv.Spy(t), Connect: connect(t, env...)}, log
}

// count is how often the module was called.
func count(t *testing.T, log, function string) int {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return len(regexp.MustCompile(`(?m)^\d+: `+function+`$`).FindAll(b, -1))
}

// TestWrongPINCostsOneTryPerQuestion: the key has three keyslots, for each of which
// systemd 257 would log in.
func TestWrongPINCostsOneTryPerQuestion(t *testing.T) {
	t.Parallel()
	h, log := spied(t, fixtureStore(t))
	raw := string(readVolume(t, "systemd257-rsa").Token)
	list := []luks2.Token{token(0, raw), token(1, string(readVolume(t, "systemd262-rsa-oaep").Token)), token(2, string(readVolume(t, "systemd257-ec").Token))}
	tried := 0
	_, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: list}, tokentest.NewUI(t, tokentest.Typed("0000", "0001", "0002")...))
	if err == nil || count(t, log, "C_Login") != 3 {
		t.Errorf("%v; three questions made %d logins", err, count(t, log, "C_Login"))
	}
	h.memory = memory{}
	_, err = h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: list, Opens: func(context.Context, luks2.Token, secret.Secret) error {
		tried++
		return tokens.ErrWrongKey
	}}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	if err == nil || tried != 3 || count(t, log, "C_Login") != 4 || count(t, log, "C_Logout") != 2 {
		t.Errorf("%v; %d keyslots tried after one question, %d logins, %d logouts", err, tried, count(t, log, "C_Login"), count(t, log, "C_Logout"))
	}
}

// TestModuleOfTheHeaderIsNeverOpened puts a module that crashes and a PIN into the
// URI of the header.
func TestModuleOfTheHeaderIsNeverOpened(t *testing.T) {
	testenv.NeedRoot(t) // the helper lets nobody else look at it
	t.Parallel()
	testenv.Need(t, "strace")
	store := fixtureStore(t)
	evil := filepath.Join(t.TempDir(), "evil.so")
	if err := os.Link(faultModule.Path(t), evil); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, filepath.Dir(evil), unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "strace.log")
	script := testenv.Script(t, "luksmith-pkcs11", fmt.Sprintf("export %s FAULT=crash-initialize\nexec strace -f -o %s -e trace=file %s\n",
		strings.Join(store.Env, " "), log, program.Path(t)))
	h := &Handler{Connect: func(ctx context.Context) (helper.Conn, error) { return helper.StartPath(ctx, script) }}

	raw := withURI(t, "systemd257-rsa", "pkcs11:token=luksmith;id=%01?module-path="+evil+"&module-name=evil&pin-value=1234")
	ui := tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...)
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, raw)}}, ui)
	if err != nil {
		t.Fatal(err)
	}
	got.Passphrase.Wipe()
	if len(ui.Prompts()) != 1 {
		t.Error("the PIN was not asked for")
	}
	trace, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(trace), "libp11-kit.so.0") || !strings.Contains(string(trace), "libsofthsm2") {
		t.Fatalf("the trace does not show what was loaded: %v", err)
	}
	if strings.Contains(string(trace), "evil") {
		t.Error("the helper touched the header's module")
	}
	events := make([]byte, 4096)
	if n, err := unix.Read(watch, events); n > 0 {
		t.Errorf("somebody opened the header's module or its folder (%d bytes of events)", n)
	} else if err != unix.EAGAIN {
		t.Fatal(err)
	}
}

// TestPINIsNowhereToBeSeen looks while a login hangs: the PIN is not in the
// arguments or the environment of the helper, nor later in the error.
func TestPINIsNowhereToBeSeen(t *testing.T) {
	testenv.NeedRoot(t) // the helper lets nobody else look at it
	t.Parallel()
	const pin = "7531902468"
	h := faulty(t, fixtureStore(t), "hang-login")
	done := make(chan error, 1)
	req := &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(readVolume(t, "systemd257-rsa").Token))}}
	ui := tokentest.NewUI(t, tokentest.Typed(pin)...)
	go func() {
		_, err := h.Unlock(t.Context(), req, ui)
		done <- err
	}()
	for len(ui.Prompts()) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(h.Timeout / 4) // the answer is on its way
	if n := helpersWith(t, pin); n != 0 {
		t.Errorf("%d helpers show the PIN", n)
	}
	if n := helpersWith(t, "FAULT=hang-login"); n == 0 {
		t.Error("the helper was not found")
	}
	if err := <-done; err == nil || strings.Contains(err.Error(), pin) {
		t.Errorf("%v", err)
	}
}

// helpersWith counts the helpers with a text in their arguments or environment.
func helpersWith(t *testing.T, text string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		line, _ := os.ReadFile(file) // the process may be gone
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if strings.Contains(string(line), wire.Program) && strings.Contains(string(line)+string(env), text) {
			n++
		}
	}
	return n
}
