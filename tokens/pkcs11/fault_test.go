package pkcs11

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

// faultModule is testdata/fault.
var faultModule testenv.FaultModule

// faulty returns a handler that uses the module with a fault on a store.
func faulty(t *testing.T, store *testenv.SoftHSM, fault string, env ...string) *Handler {
	t.Helper()
	env = append(faultModule.Env(t, store, fault), env...)
	return &Handler{Module: faultModule.Path(t), Connect: connect(t, env...), Timeout: 2 * time.Second}
}

// faults of the module, and what unlocking the RSA fixture comes to with them.
var faults = []struct {
	fault   string
	want    error  // a sentinel, nil for success
	text    string // part of the error, or of a note
	answers []string
}{
	{"cannot-lock", nil, "", []string{"1234"}},
	{"prints", nil, "", []string{"1234"}},
	{"no-login", nil, "", nil},
	{"secretive", nil, "", []string{"1234"}},
	{"ignores-templates", nil, "", []string{"1234"}},
	{"hides-all", nil, "", []string{"1234"}},
	{"garbage", nil, "", []string{"1234"}},
	{"no-oaep", nil, "", []string{"1234"}},
	{"endless-objects", nil, "", []string{"1234"}},
	{"fail-initialize", errAny, "starting PKCS#11 module", nil},
	{"fail-slots", errAny, "listing slots: CKR_DEVICE_ERROR", nil},
	{"many-slots", tokens.ErrNoDevice, "", nil},
	{"crash-initialize", helper.ErrCrashed, "SIGSEGV", nil},
	{"crash-login", helper.ErrCrashed, "SIGSEGV", []string{"1234"}},
	{"crash-decrypt", helper.ErrCrashed, "SIGSEGV", []string{"1234"}},
	{"hang-initialize", tokens.ErrTimeout, "does not answer", nil},
	{"hang-login", tokens.ErrTimeout, "does not answer", []string{"1234"}},
	{"removed-at-login", tokens.ErrNoDevice, "logging in: CKR_DEVICE_REMOVED", []string{"1234"}},
	{"removed-at-decrypt", tokens.ErrNoDevice, "decrypting: CKR_DEVICE_REMOVED", []string{"1234"}},
	{"no-pin", errAny, "luksmith has no user PIN yet", nil},
	{"empty-plaintext", tokens.ErrWrongKey, "", []string{"1234"}},
}

// errAny stands for an error without a sentinel.
var errAny = errors.New("any error")

func TestFaultyModules(t *testing.T) {
	t.Parallel()
	for _, c := range faults {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			v := readVolume(t, "systemd257-rsa")
			h := faulty(t, fixtureStore(t), c.fault, "FAULT_PIN=1234")
			raw := string(v.Token)
			if c.fault == "garbage" {
				raw = withURI(t, "systemd257-rsa", "pkcs11:serial=1de865a38bd47acc;id=%01")
			}
			begin := time.Now()
			got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, raw)},
				Opens: opens(secretOf(t, v.Passphrase))}, tokentest.NewUI(t, tokentest.Typed(c.answers...)...))
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				got.Passphrase.Wipe()
				return
			}
			if err == nil || c.want != errAny && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %v with %q", err, c.want, c.text)
			}
			if err != nil && (strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) || len(err.Error()) > 700) {
				t.Errorf("not one printable line: %q", err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestPointsInTheFormThatAModuleWants: PKCS#11 2.20 did not say which.
func TestPointsInTheFormThatAModuleWants(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"raw-points", "der-points", "wants-length", "compressed-points", "secretive"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			v := readVolume(t, "systemd257-ec")
			h := faulty(t, fixtureStore(t), fault)
			got, err := unlock(t, h, string(v.Token), fixtureToken.PIN)
			if err != nil || string(got.Bytes()) != v.Passphrase {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestOAEPThatTheTokenOnlyClaims(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"no-oaep", "claims-oaep"} {
		h := faulty(t, fixtureStore(t), fault)
		h.TokenURI = "pkcs11:object=rsa"
		e := enroll(t, h, 262, fixtureToken.PIN)
		r, err := parse(e.Token)
		if err != nil || r.paddingMember() != "" || !strings.Contains(strings.Join(e.Notes, " "), "this token decrypts no OAEP") {
			t.Errorf("%s: padding %q, notes %q, %v", fault, r.paddingMember(), e.Notes, err)
		}
	}
}

func TestTokenThatHidesItsKeysIsEnrolledWithOneQuestion(t *testing.T) {
	t.Parallel()
	h := faulty(t, fixtureStore(t), "hides-all")
	h.TokenURI = "pkcs11:object=ec"
	enroll(t, h, 262, fixtureToken.PIN)
}

func TestKeypad(t *testing.T) {
	t.Parallel()
	v := readVolume(t, "systemd257-rsa")
	h := faulty(t, fixtureStore(t), "keypad", "FAULT_PIN=1234")
	ui := tokentest.NewUI(t)
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(v.Token))}}, ui)
	if err != nil {
		t.Fatal(err)
	}
	got.Passphrase.Wipe()
	if shown := ui.Shown(); len(shown) == 0 || shown[0] != "Enter the PIN of luksmith on its keypad" {
		t.Errorf("shown: %q", shown)
	}
	h = faulty(t, fixtureStore(t), "keypad") // nobody types
	_, err = h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(v.Token))}}, tokentest.NewUI(t))
	if err == nil || !strings.Contains(err.Error(), "CKR_FUNCTION_CANCELED") || errors.Is(err, tokens.ErrCancelled) {
		t.Errorf("cancelled at the keypad: %v, want an error after which the next way is tried", err)
	}
}

// TestPINCounters follows a token to its last try and beyond.
func TestPINCounters(t *testing.T) {
	t.Parallel()
	raw := string(readVolume(t, "systemd257-rsa").Token)
	h := faulty(t, fixtureStore(t), "counts")
	try := func(u string, want error, script ...tokentest.Answer) *tokentest.UI {
		t.Helper()
		run := &Handler{Module: h.Module, Connect: h.Connect, UnlockURI: u}
		ui := tokentest.NewUI(t, script...)
		got, err := run.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, raw)}}, ui)
		if err == nil {
			got.Passphrase.Wipe()
		}
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
		return ui
	}
	wrong, right := tokentest.Answer{Text: "0000"}, tokentest.Answer{Text: fixtureToken.PIN}
	// A wrong one, and nobody there to type another.
	try("", tokens.ErrWrongPIN, wrong, tokentest.Answer{Err: tokens.ErrNoPrompt})
	try("", nil, right)
	try("pkcs11:object=rsa?pin-value=0000", tokens.ErrWrongPIN, tokentest.Answer{Err: tokens.ErrNoPrompt})
	try("", nil, right)
	// The second wrong one leaves one try, and the person gives up.
	ui := try("", tokens.ErrCancelled, wrong, wrong, tokentest.Answer{Err: tokens.ErrCancelled})
	for i, want := range []int{0, 0, 1} {
		if p := ui.Prompts()[i]; p.TriesLeft != want || p.Attempt != i {
			t.Errorf("question %d: %+v, want TriesLeft %d", i, p, want)
		}
	}
	// No credential and no PIN of the administrator's URI is used for the last try.
	ui = try("", tokens.ErrNoPrompt, tokentest.Answer{Err: tokens.ErrNoPrompt})
	if p := ui.Prompts()[0]; p.Attempt != 1 || p.TriesLeft != 1 {
		t.Errorf("%+v", p)
	}
	ui = try("pkcs11:object=rsa?pin-value=0000", nil, right)
	if p := ui.Prompts()[0]; p.TriesLeft != 1 || len(ui.Notes()) != 1 || !strings.Contains(ui.Notes()[0], "one try left") {
		t.Errorf("%+v, notes %q", p, ui.Notes())
	}
	// A right PIN gives all tries back; one of impossible length costs none.
	try("", tokens.ErrCancelled, tokentest.Answer{Text: "1"}, tokentest.Answer{Text: strings.Repeat("1", 300)}, tokentest.Answer{Err: tokens.ErrCancelled})
	try("", tokens.ErrCancelled, wrong, tokentest.Answer{Err: tokens.ErrCancelled})
	ui = try("", tokens.ErrLocked, wrong, wrong)
	if !strings.Contains(ui.Prompts()[0].Text, "a wrong one was entered before") || ui.Prompts()[1].TriesLeft != 1 {
		t.Errorf("%+v", ui.Prompts())
	}
	// Locked: nobody is asked, and what to do is said.
	try("", tokens.ErrLocked)
}

// TestCardThatIsBackBeforeAnybodyLooks: it was pulled out while it was used, and seems
// never to have gone.
func TestCardThatIsBackBeforeAnybodyLooks(t *testing.T) {
	t.Parallel()
	raw := string(readVolume(t, "systemd257-rsa").Token)
	for _, fault := range []string{"removed-at-login", "removed-at-decrypt"} {
		store := fixtureStore(t)
		h := faulty(t, store, fault)
		if _, err := unlock(t, h, raw, fixtureToken.PIN); !errors.Is(err, tokens.ErrNoDevice) {
			t.Fatalf("%s: %v", fault, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), waitSlice)
		defer cancel()
		if err := h.WaitDevice(ctx); err != nil {
			t.Errorf("%s: waiting: %v", fault, err)
		}
		h.Module = store.Module
		if _, err := unlock(t, h, raw, fixtureToken.PIN); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
	}
}

func TestLockedTokenHasAHint(t *testing.T) {
	t.Parallel()
	var hinted interface {
		error
		Hint() string
	}
	h := faulty(t, fixtureStore(t), "counts")
	_, err := unlock(t, h, string(readVolume(t, "systemd257-rsa").Token), "0000", "0001", "0002")
	if !errors.Is(err, tokens.ErrWrongPIN) && !errors.Is(err, tokens.ErrLocked) {
		t.Fatal(err)
	}
	h.memory = memory{}
	if _, err = unlock(t, h, string(readVolume(t, "systemd257-rsa").Token)); !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), "PUK") {
		t.Errorf("%v has no hint", err)
	}
}

// TestWaitingForATouchIsShown: PKCS#11 does not say that a card waits for a touch.
func TestWaitingForATouchIsShown(t *testing.T) {
	t.Parallel()
	v := readVolume(t, "systemd257-rsa")
	ui := tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...)
	got, err := faulty(t, fixtureStore(t), "touch").Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(v.Token))}}, ui)
	if err != nil {
		t.Fatal(err)
	}
	got.Passphrase.Wipe()
	if shown := ui.Shown(); len(shown) != 1 || shown[0] != "Waiting for luksmith; touch it if it blinks" {
		t.Errorf("shown: %q", shown)
	}
}

// TestCancelWhileAModuleHangs: Ctrl-C must not wait for the module.
func TestCancelWhileAModuleHangs(t *testing.T) {
	t.Parallel()
	h := faulty(t, fixtureStore(t), "hang-initialize")
	h.Timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := h.Unlock(ctx, &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(readVolume(t, "systemd257-rsa").Token))}}, tokentest.NewUI(t))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

// TestOtherTokensAreTriedAfterACrash: one card's decryption crashes the module, the
// other volume key is on another card.
func TestOtherTokensAreTriedAfterACrash(t *testing.T) {
	t.Parallel()
	store := fixtureStore(t)
	other := testenv.Token{Label: "other", PIN: "222222"}
	store.AddToken(t, other)
	store.AddKey(t, other, testenv.Key{ID: "01", Label: "ec", Private: newEC(t, p256)})
	plain := &Handler{Connect: connect(t, store.Env...), TokenURI: "pkcs11:token=other"}
	e := enroll(t, plain, 262, other.PIN)
	h := faulty(t, store, "crash-decrypt") // RSA only
	ui := &answering{t: t, pins: map[string]string{"PIN of luksmith": fixtureToken.PIN, "PIN of other": other.PIN}}
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Opens: opens(e.Passphrase),
		Tokens: []luks2.Token{token(0, string(readVolume(t, "systemd257-rsa").Token)), token(1, string(e.Token))}}, ui)
	if err != nil || got.Token.ID != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	got.Passphrase.Wipe()
}
