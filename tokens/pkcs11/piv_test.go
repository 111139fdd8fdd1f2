package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/pivtest"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

const pivPIN = "654321"

// pivHandler uses a reader through p11-kit and OpenSC, as a real one is used.
func pivHandler(t *testing.T, r *pivtest.Reader) *Handler {
	t.Helper()
	return &Handler{Connect: connect(t, append(r.Env, testenv.NewSoftHSM(t).Env...)...)}
}

// insert puts a card into a reader and waits until it is seen.
func insert(t *testing.T, r *pivtest.Reader, c *pivtest.Card, h *Handler) (remove func()) {
	t.Helper()
	remove = r.Insert(t, c)
	for range 100 {
		table, err := h.Devices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(table.Rows) > 0 {
			return remove
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the card is not seen")
	return nil
}

// TestSmartcardThroughOpenSC is the way of a real YubiKey, from the list to the
// locked PIN.
func TestSmartcardThroughOpenSC(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "pkcs11-tool")
	rsaKey, ecKey := newRSA(t, 2048), newEC(t, p256)
	c := pivtest.NewCard(pivPIN, 7)
	c.AddKey(pivtest.KeyManagement, ecKey, testenv.SelfSigned(t, "disk", ecKey))
	c.AddKey(pivtest.Authentication, rsaKey, testenv.SelfSigned(t, "login", rsaKey))
	r := pivtest.NewReader(t)
	h := pivHandler(t, r)
	insert(t, r, c, h)

	table, err := h.Devices(t.Context())
	if err != nil || len(table.Rows) != 2 {
		t.Fatalf("%q, %v", table.Rows, err)
	}
	for i, want := range [][]string{{"RSA-2048", "id=%01"}, {"P-256", "id=%03"}} {
		if row := table.Rows[i]; row[3] != want[0] || !strings.HasSuffix(row[4], "serial=8707070707070707;"+want[1]) {
			t.Errorf("row %q, want %q", row, want)
		}
	}
	t.Run("EC", func(t *testing.T) { pivRoundTrip(t, h, table.Rows[1][4], 262, wire.PKCS1) })
	t.Run("RSA 1.5", func(t *testing.T) { pivRoundTrip(t, h, table.Rows[0][4], 252, wire.PKCS1) })
	t.Run("RSA OAEP", func(t *testing.T) { pivRoundTrip(t, h, table.Rows[0][4], 262, wire.OAEPSHA256) })
	t.Run("PIN", func(t *testing.T) { pivPINs(t, h, c, table.Rows[1][4]) })
}

// pivRoundTrip enrols and unlocks.
func pivRoundTrip(t *testing.T, h *Handler, uri string, compat int, padding wire.Padding) {
	h = &Handler{Connect: h.Connect, TokenURI: uri}
	e := enroll(t, h, compat, pivPIN)
	if r, err := parse(e.Token); err != nil || r.padding != padding {
		t.Errorf("padding %s, %v", r.padding, err)
	}
	got, err := unlock(t, h, string(e.Token), pivPIN)
	if err != nil || !got.Equal(e.Passphrase) {
		t.Errorf("%v", err)
	}
}

// pivPINs uses up the tries of a card: every question costs one.
func pivPINs(t *testing.T, h *Handler, c *pivtest.Card, uri string) {
	h = &Handler{Connect: h.Connect, TokenURI: uri}
	e := enroll(t, h, 262, pivPIN)
	try := func(want error, script ...tokentest.Answer) []tokens.Prompt {
		t.Helper()
		ui := tokentest.NewUI(t, script...)
		got, err := (&Handler{Connect: h.Connect}).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(e.Token))}}, ui)
		if err == nil {
			got.Passphrase.Wipe()
		}
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
		return ui.Prompts()
	}
	asked := try(tokens.ErrCancelled, tokentest.Answer{Text: "000000"}, tokentest.Answer{Text: "000001"}, tokentest.Answer{Err: tokens.ErrCancelled})
	if c.Tries() != 1 || asked[2].TriesLeft != 1 {
		t.Errorf("%d tries left after two wrong PINs, the third question says %d", c.Tries(), asked[2].TriesLeft)
	}
	asked = try(nil, tokentest.Answer{Text: pivPIN})
	if c.Tries() != 3 || asked[0].TriesLeft != 1 {
		t.Errorf("%d tries after the right PIN, the question said %d", c.Tries(), asked[0].TriesLeft)
	}
	try(tokens.ErrLocked, tokentest.Answer{Text: "000000"}, tokentest.Answer{Text: "000001"}, tokentest.Answer{Text: "000002"})
	try(tokens.ErrLocked)
	if c.Tries() != 0 {
		t.Errorf("%d tries left", c.Tries())
	}
}

// TestCardsComeAndGo unlocks as a command does, while somebody plays with cards. The
// reader stays, so the kernel has no event to offer.
func TestCardsComeAndGo(t *testing.T) {
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	t.Parallel()
	key := newEC(t, p256)
	right, wrong := pivtest.NewCard(pivPIN, 1), pivtest.NewCard(pivPIN, 2)
	for _, c := range []*pivtest.Card{right, wrong} {
		c.AddKey(pivtest.KeyManagement, key, testenv.SelfSigned(t, fmt.Sprint("card ", c == right), key))
	}
	r := pivtest.NewReader(t)
	h := pivHandler(t, r)
	remove := insert(t, r, right, h)
	h.TokenURI = auto
	e := enroll(t, h, 262, pivPIN)
	remove()
	time.Sleep(time.Second) // pcscd looks a few times a second

	// OpenSC 0.23 hangs when a card goes while it is read, so that is waited for.
	inside, pulled, failed := make(chan func(), 1), make(chan struct{}), make(chan struct{}, 100)
	ui := tokentest.NewUI(t, tokentest.Answer{Text: pivPIN, Before: func(tokens.Prompt) {
		(<-inside)()            // while the PIN is typed
		time.Sleep(time.Second) // the virtual reader hangs if pcscd has not noticed
		close(pulled)
	}}, tokentest.Answer{Text: pivPIN})
	go func() {
		<-failed
		removeWrong := r.Insert(t, wrong)
		<-failed
		removeWrong()
		time.Sleep(500 * time.Millisecond)
		inside <- r.Insert(t, right)
		<-pulled
		time.Sleep(time.Second)
		r.Insert(t, right)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	req := &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(e.Token))}}
	for round := 0; ; round++ {
		got, err := h.Unlock(ctx, req, ui)
		if err == nil {
			if !got.Passphrase.Equal(e.Passphrase) {
				t.Error("another passphrase")
			}
			got.Passphrase.Wipe()
			t.Logf("unlocked in round %d", round)
			break
		}
		if !errors.Is(err, tokens.ErrNoDevice) {
			t.Fatalf("round %d: %v", round, err)
		}
		failed <- struct{}{}
		if err := h.WaitDevice(ctx); err != nil {
			t.Fatalf("round %d: waiting: %v", round, err)
		}
	}
}

// TestWaitDevice measures how soon a card is noticed, and that nothing else is.
func TestWaitDevice(t *testing.T) {
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	t.Parallel()
	r := pivtest.NewReader(t)
	h := pivHandler(t, r)
	if _, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, typeCert)}}, tokentest.NewUI(t)); !errors.Is(err, tokens.ErrNoDevice) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitSlice+time.Second) // longer than one process waits
	defer cancel()
	if err := h.WaitDevice(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a card: %v", err)
	}
	c := pivtest.NewCard(pivPIN, 1)
	time.AfterFunc(time.Second, func() { r.Insert(t, c) })
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begin := time.Now()
	if err := h.WaitDevice(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("noticed %v after it was put in", (time.Since(begin) - time.Second).Round(10*time.Millisecond))
}

// TestTokenOfAModuleThatOnlyLooksAtItsStart: SoftHSM reads its store once, so the
// process has to be a new one now and then.
func TestTokenOfAModuleThatOnlyLooksAtItsStart(t *testing.T) {
	t.Parallel()
	store := testenv.NewSoftHSM(t)
	h := &Handler{Module: store.Module, Connect: connect(t, store.Env...)}
	if _, err := unlock(t, h, typeCert); !errors.Is(err, tokens.ErrNoDevice) {
		t.Fatal(err)
	}
	go store.Restore(t, filepath.Join("testdata", "softhsm"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.WaitDevice(ctx); err != nil {
		t.Error(err)
	}
}
