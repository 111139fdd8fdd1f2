package fido2

import (
	"errors"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

// shortLimit is for keys that are not going to answer.
const shortLimit = time.Second

// block uses up PIN tries: three in a row, or with forGood all.
func block(t *testing.T, r *rig, forGood bool, tok luks2.Token) {
	t.Helper()
	for range 3 {
		for locked := false; !locked; {
			_, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed("wrong")...), nil, tok)
			locked = errors.Is(err, tokens.ErrLocked)
		}
		if !forGood || r.key.PINRetries() == 0 {
			return
		}
		r.key.PlugIn()
	}
}

// TestBlockedKeyIsNotSaidToBeAbsent: firmware B refuses even pre-flights while its PIN
// is blocked, also for tokens that need no PIN. The key is plugged in: that is the
// one reason, and what it takes the one hint.
func TestBlockedKeyIsNotSaidToBeAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		forGood bool
		says    string
	}{"until plugged in again": {false, "unplug it and plug it in again"}, "for good": {true, "for good"}} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, fidotest.Config{PIN: pin, Firmware: fidotest.CTAP20, Product: "Key B"}, func(t *testing.T, r *rig) {
				withPIN, _ := enroll(t, r.handler(), 0, pin)
				touch, e := enroll(t, r.handler(withoutPIN), 1, pin)
				block(t, r, c.forGood, withPIN)
				for _, list := range [][]luks2.Token{{withPIN}, {touch}, {withPIN, touch}} {
					_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, list...)
					wantError(t, err, tokens.ErrLocked, c.says)
					if errors.Is(err, tokens.ErrNoDevice) || errors.Is(err, tokens.ErrReplug) == c.forGood {
						t.Errorf("%v", err)
					}
					if n := strings.Count(err.Error(), c.says); n != len(list) {
						t.Errorf("the reason stands %d times for %d tokens:\n%v", n, len(list), err)
					}
				}
				if c.forGood {
					return
				}
				r.key.PlugIn()
				got, err := unlock(t, r.handler(), tokentest.NewUI(t), opener(e.Passphrase), touch)
				wantUnlocked(t, got, err, e)
			})
		})
	}
}

// TestBlockedKeyOfAnotherModelIsNotTheReason: the token's own key can still be plugged
// in.
func TestBlockedKeyOfAnotherModelIsNotTheReason(t *testing.T) {
	t.Parallel()
	a := fidotest.New(fidotest.Config{AAGUID: [16]byte{1}, Product: "Key A"})
	b := fidotest.New(fidotest.Config{AAGUID: [16]byte{2}, Product: "Key B", PIN: pin, Firmware: fidotest.CTAP20})
	bench := fidotest.NewBench(a, b)
	tokA, e := enroll(t, &Handler{Dial: bench.Dial, Device: fidotest.Path(0)}, 0)
	tokB, _ := enroll(t, &Handler{Dial: bench.Dial, Device: fidotest.Path(1)}, 1, pin)
	r := &rig{b, bench.Dial, "auto"}
	a.Unplug()
	block(t, r, false, tokB)
	_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, tokA)
	wantError(t, err, tokens.ErrNoDevice, "Key B takes no PIN")
	a.PlugIn()
	got, err := unlock(t, r.handler(), tokentest.NewUI(t), opener(e.Passphrase), tokA, tokB)
	wantUnlocked(t, got, err, e)
}

// TestResetKeyIsNotSaidToBeUnplugged: a key of the same model without the credential is
// there; a reset changes nothing of what it says of itself.
func TestResetKeyIsNotSaidToBeUnplugged(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]fidotest.Config{
		"by AAGUID": {Product: "Solo", AAGUID: [16]byte{1}}, "by product": {Product: "Solo"},
	} {
		t.Run(name, func(t *testing.T) {
			bench := fidotest.NewBench(fidotest.New(config))
			tok, _ := enroll(t, &Handler{Dial: bench.Dial}, 0)
			bench.Put(fidotest.Path(0), fidotest.New(config))
			_, err := unlock(t, &Handler{Dial: bench.Dial}, tokentest.NewUI(t), nil, tok)
			wantError(t, err, tokens.ErrNoDevice, "/dev/hidraw0 (Solo) is there but does not hold the credential")
			if strings.Contains(err.Error(), "not plugged in") {
				t.Error(err)
			}
		})
	}
}

// TestKeyThatCannotBeAskedIsNotSaidToBeUnplugged: a silent one may be the right one.
func TestKeyThatCannotBeAskedIsNotSaidToBeUnplugged(t *testing.T) {
	onBoth(t, fidotest.Config{}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 0)
		for _, fault := range []fidotest.Fault{fidotest.Silent, fidotest.SilentCommands} {
			r.key.Configure(func(c *fidotest.Config) { c.Fault = fault })
			h := r.handler(func(h *Handler) { h.answerLimit, h.touchLimit = shortLimit, shortLimit })
			_, err := unlock(t, h, tokentest.NewUI(t), nil, tok)
			wantError(t, err, tokens.ErrTimeout, "does not answer")
			if strings.Contains(err.Error(), "not plugged in") {
				t.Error(err)
			}
		}
	})
}

// TestPINThatNoKeyLookedAtIsNotUsedUp: a credential may be sent again once the blocked
// key was plugged in again; one that was refused may not.
func TestPINThatNoKeyLookedAtIsNotUsedUp(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(), 0, pin)
		block(t, r, false, tok)
		h := r.handler()
		ui := tokentest.NewUI(t, tokentest.Typed(pin)...)
		_, err := unlock(t, h, ui, nil, tok)
		wantError(t, err, tokens.ErrLocked, "")
		r.key.PlugIn()
		ui = tokentest.NewUI(t, tokentest.Typed(pin)...)
		got, err := unlock(t, h, ui, opener(e.Passphrase), tok)
		wantUnlocked(t, got, err, e)
		if p := ui.Prompts()[0]; !p.Unread || p.Attempt != 0 {
			t.Errorf("%+v", p)
		}
	})
}

// TestPINThatBlockedTheKeyIsUsedUp: the third wrong one was looked at.
func TestPINThatBlockedTheKeyIsUsedUp(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 0, pin)
		for range 2 {
			_, _ = unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed("wrong")...), nil, tok)
		}
		h := r.handler()
		_, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed("wrong")...), nil, tok)
		wantError(t, err, tokens.ErrLocked, "")
		r.key.PlugIn()
		ui := tokentest.NewUI(t, tokentest.Typed("wrong")...)
		_, err = unlock(t, h, ui, nil, tok)
		wantError(t, err, tokens.ErrWrongPIN, "")
		if p := ui.Prompts()[0]; p.Unread || p.Attempt != 1 {
			t.Errorf("%+v", p)
		}
	})
}

// TestEnrollmentSaysWhatWasMade: a key without PIN was announced with one.
func TestEnrollmentSaysWhatWasMade(t *testing.T) {
	onBoth(t, fidotest.Config{}, func(t *testing.T, r *rig) {
		_, e := enroll(t, r.handler(), 0)
		if !strings.HasSuffix(e.Made, ", touch") || strings.Contains(e.Made, "PIN") {
			t.Errorf("made %q", e.Made)
		}
	})
}
