package fido2

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
)

// TestKeyThatIsNeverTouchedInTimeDoesNotStarveTheOther: it says so at once, and is
// listed first.
func TestKeyThatIsNeverTouchedInTimeDoesNotStarveTheOther(t *testing.T) {
	t.Parallel()
	hasty := fidotest.New(fidotest.Config{Product: "Key A", TouchTimeout: time.Millisecond})
	bench := fidotest.NewBench(hasty, fidotest.New(fidotest.Config{Product: "Key B"}))
	a, _ := enroll(t, &Handler{Dial: bench.Dial, Device: "Key A"}, 0)
	b, e := enroll(t, &Handler{Dial: bench.Dial, Device: "Key B"}, 1)
	hasty.SetTouch(fidotest.Touch{Never: true})
	got, err := unlock(t, &Handler{Dial: bench.Dial}, tokentest.NewUI(t), nil, a, b)
	wantUnlocked(t, got, err, e)
	if n := hasty.Stats().TimedOut; n > 1 {
		t.Errorf("the other key had its turn after %d requests", n)
	}
	before := hasty.Stats().TimedOut
	_, err = unlock(t, &Handler{Dial: bench.Dial}, tokentest.NewUI(t), nil, a)
	wantError(t, err, tokens.ErrTimeout, "")
	if n := hasty.Stats().TimedOut - before; n > hastyAnswers {
		t.Errorf("%d requests to a key that never waits", n)
	}
}

// TestVerificationWithoutReaderAsksForThePIN: the only other way to be verified.
func TestVerificationWithoutReaderAsksForThePIN(t *testing.T) {
	t.Parallel()
	bench := fidotest.NewBench(fidotest.New(fidotest.Config{PIN: "1234"}))
	tok, e := enroll(t, &Handler{Dial: bench.Dial}, 0, "1234")
	tok.Raw = bytes.Replace(tok.Raw, []byte(`"fido2-clientPin-required":true`), []byte(`"fido2-clientPin-required":false`), 1)
	tok.Raw = bytes.Replace(tok.Raw, []byte(`"fido2-uv-required":false`), []byte(`"fido2-uv-required":true`), 1)
	ui := tokentest.NewUI(t, tokentest.Typed("1234")...)
	got, err := unlock(t, &Handler{Dial: bench.Dial}, ui, nil, tok)
	wantUnlocked(t, got, err, e)
	if len(ui.Prompts()) != 1 {
		t.Errorf("%d questions", len(ui.Prompts()))
	}
}

// TestKeyThatSaysOtherThingsThanAMomentAgoIsNotEnrolled: the token would claim a touch
// or a finger that nobody is asked for.
func TestKeyThatSaysOtherThingsThanAMomentAgoIsNotEnrolled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config fidotest.Config
		set    func(*Handler)
	}{
		"touch":  {fidotest.Config{Firmware: fidotest.CTAP20}, with(boolean(false), boolean(false), boolean(false))},
		"finger": {fidotest.Config{BuiltInUV: true}, with(boolean(false), boolean(true), boolean(true))},
	} {
		c.config.Fault = fidotest.FickleFlags
		h := &Handler{Dial: fidotest.NewBench(fidotest.New(c.config)).Dial}
		c.set(h)
		e, err := h.Enroll(t.Context(), request(), tokentest.NewUI(t))
		if err == nil {
			e.Passphrase.Wipe()
		}
		if err == nil || !strings.Contains(err.Error(), "wants other things than a moment ago") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeyThatCallsAPINWrongThatNobodySent: enrolling on it went on without end.
func TestKeyThatCallsAPINWrongThatNobodySent(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]fidotest.Config{"no PIN set": {}, "a PIN set, none wanted": {PIN: pin}} {
		k := fidotest.New(config)
		k.Configure(func(c *fidotest.Config) { c.Fault = fidotest.ClaimsWrongPIN })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		h := &Handler{Dial: fidotest.NewBench(k).Dial, WithPIN: boolean(false)}
		_, err := h.Enroll(ctx, request(), tokentest.NewUI(t))
		if ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "although none was sent") {
			t.Errorf("%s: %v", name, err)
		}
		if n := k.Stats().Creations; n > 1 {
			t.Errorf("%s: %d requests", name, n)
		}
		cancel()
	}
}
