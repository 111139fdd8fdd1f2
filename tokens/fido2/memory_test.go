package fido2

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// secretive answers every question with the same PIN, which never leaves locked
// memory.
type secretive struct {
	silent
	pin secret.Secret
}

func (s secretive) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	return s.pin.Clone(), nil
}

// After an enrolment and unlocking, with a silent key in the end, neither PIN nor
// its base64 nor the passphrase is in the memory of the process. The helper's copies
// died with it.
func TestMemoryHoldsNoPIN(t *testing.T) {
	thePIN := secret.Random(24)
	for i, c := range thePIN.Bytes() {
		thePIN.Bytes()[i] = 'a' + c%26
	}
	text := secret.Base64(thePIN)
	sum := sha256.Sum256(thePIN.Bytes())
	needles := [][]byte{testenv.Inverted(thePIN.Bytes()), testenv.Inverted(text.Bytes())}
	text.Wipe()

	k := fidotest.New(fidotest.Config{PINHash: sum[:16]})
	path, err := k.Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{Dial: fidotest.Dial(t), Device: path, UnlockDevice: path, touchLimit: 500 * time.Millisecond}
	ui := secretive{pin: thePIN}
	e, err := h.Enroll(t.Context(), request(), ui)
	if err != nil {
		t.Fatal(err)
	}
	needles = append(needles, testenv.Inverted(e.Passphrase.Bytes()))
	tok := luks2.Token{Type: Type, Raw: e.Token}
	got, err := unlock(t, h, ui, opener(e.Passphrase), tok)
	wantUnlocked(t, got, err, e)
	got.Passphrase.Wipe()
	k.Configure(func(c *fidotest.Config) { c.Fault = fidotest.SilentCommands })
	if _, err := unlock(t, h, ui, nil, tok); !errors.Is(err, tokens.ErrTimeout) {
		t.Errorf("silent key: %v", err)
	}
	e.Passphrase.Wipe()
	thePIN.Wipe()
	for i, what := range []string{"PIN", "base64 of the PIN", "passphrase"} {
		if n := testenv.Copies(t, needles[i]); n != 0 {
			t.Errorf("%d copies of the %s in memory", n, what)
		}
	}
	// The search does find what is there.
	again := secret.Take(testenv.Inverted(needles[0]))
	defer again.Wipe()
	if testenv.Copies(t, needles[0]) == 0 {
		t.Error("the search finds nothing")
	}
}

// A key that answers nothing: when the caller's time is up the helper is gone
// within a second.
func TestHelperIsGoneSoonAfterTheDeadline(t *testing.T) {
	t.Parallel()
	k := fidotest.New(fidotest.Config{})
	path, err := k.Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{Dial: fidotest.Dial(t), Device: path, UnlockDevice: path}
	tok, _ := enroll(t, h, 0)
	k.Configure(func(c *fidotest.Config) { c.Fault = fidotest.Silent })
	ctx, cancel := context.WithCancel(t.Context())
	var cancelled time.Time
	time.AfterFunc(300*time.Millisecond, func() { cancelled = time.Now(); cancel() })
	_, err = h.Unlock(ctx, &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, tokentest.NewUI(t))
	if late := time.Since(cancelled); !errors.Is(err, context.Canceled) || late > time.Second {
		t.Errorf("%v, %v after the end", err, late) // Unlock waits until its processes are reaped
	}
}
