package fido2

import (
	"bytes"
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
