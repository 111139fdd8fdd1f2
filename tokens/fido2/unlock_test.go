package fido2

import (
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

// The symptom was: three enrolled slots and one wrong PIN cost three tries.
func TestWrongPINCostsOneTryWithThreeSlots(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		var list []luks2.Token
		for i := range 3 {
			tok, _ := enroll(t, r.handler(), i, pin)
			list = append(list, tok)
		}
		h := r.handler()
		_, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed("wrong")...), opener(), list...)
		wantError(t, err, tokens.ErrWrongPIN, "7 tries left")
		if n := r.key.Stats().WrongPINs; n != 1 || r.key.PINRetries() != 7 {
			t.Errorf("%d tries used, %d left", n, r.key.PINRetries())
		}
		// The next call asks again, says that the last one was wrong, and one
		// right PIN does for all three.
		ui := tokentest.NewUI(t, tokentest.Typed(pin)...)
		_, err = unlock(t, h, ui, opener(), list...)
		wantError(t, err, tokens.ErrWrongKey, "")
		if p := ui.Prompts(); len(p) != 1 || p[0].Attempt != 1 || p[0].TriesLeft != 7 {
			t.Errorf("prompts %+v", p)
		}
	})
}

func TestPINThatCannotBeOneIsNotSent(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 0, pin)
		for _, p := range []string{"", "123", strings.Repeat("1", 64), "12\x0034"} {
			_, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(p)...), opener(), tok)
			wantError(t, err, tokens.ErrWrongPIN, "was not sent")
		}
		if r.key.Stats().WrongPINs != 0 {
			t.Error("it was sent")
		}
	})
}

func TestBlockedPINs(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(), 0, pin)
		h := r.handler()
		for i := range 8 {
			if i > 0 && i%2 == 0 {
				r.key.PlugIn() // two wrong ones in a row are no block yet
			}
			want := tokens.ErrWrongPIN
			if i == 7 {
				want = tokens.ErrLocked
			}
			_, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed("wrong")...), nil, tok)
			wantError(t, err, want, "")
		}
		// Blocked for good: nobody is asked any more.
		_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrLocked, "recovery key")
		_ = e
	})
}

// A wrong PIN in a credential would use up the last tries, one at each boot.
func TestLastTriesAreForPeople(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(), 0, pin)
		for i := range 5 {
			r.key.PlugIn()
			ui := tokentest.NewUI(t, tokentest.Typed("wrong")...)
			_, err := unlock(t, r.handler(), ui, nil, tok)
			wantError(t, err, tokens.ErrWrongPIN, "")
			if p := ui.Prompts()[0]; p.Attempt != 0 || p.TriesLeft != 8-i {
				t.Errorf("boot %d: %+v", i, p)
			}
		}
		r.key.PlugIn()
		ui := tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrNoPrompt})
		_, err := unlock(t, r.handler(), ui, nil, tok)
		wantError(t, err, tokens.ErrNoPrompt, "with 3 tries left")
		ui = tokentest.NewUI(t, tokentest.Typed(pin)...)
		got, err := unlock(t, r.handler(), ui, nil, tok)
		wantUnlocked(t, got, err, e)
		if p := ui.Prompts()[0]; !p.Person || p.Attempt != 0 || p.TriesLeft != 3 {
			t.Errorf("%+v", p)
		}
	})
}

func TestThreeWrongPINsInARow(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(), 0, pin)
		h := r.handler()
		for i := range 4 {
			want := tokens.ErrWrongPIN
			if i >= 2 {
				want = tokens.ErrLocked
			}
			_, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed("wrong")...), nil, tok)
			wantError(t, err, want, "")
		}
		if r.key.PINRetries() != 5 {
			t.Errorf("%d tries left", r.key.PINRetries())
		}
		r.key.PlugIn()
		got, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed(pin)...), nil, tok)
		wantUnlocked(t, got, err, e)
	})
}

func TestNobodyToAsk(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 0, pin)
		touch, e := enroll(t, r.handler(withoutPIN), 1)
		got, err := unlock(t, r.handler(), tokentest.NewUI(t), opener(e.Passphrase), tok, touch)
		wantUnlocked(t, got, err, e) // the one that needs no PIN comes first
		_, err = unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrNoPrompt}), opener(), tok)
		wantError(t, err, tokens.ErrNoPrompt, "keyslot 0 (fido2")
	})
}

func TestGivingUpAtThePINEndsEverything(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		a, _ := enroll(t, r.handler(), 0, pin)
		b, _ := enroll(t, r.handler(), 1, pin)
		_, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrCancelled}), opener(), a, b)
		wantError(t, err, tokens.ErrCancelled, "keyslot 0 (fido2")
	})
}

// Of two keys only the one that holds a credential is asked anything, whatever
// the order of tokens and devices.
func TestOnlyTheRightKeyPrompts(t *testing.T) {
	t.Parallel()
	a := fidotest.New(fidotest.Config{Firmware: fidotest.CTAP21, PIN: "aaaa", Product: "Key A"})
	b := fidotest.New(fidotest.Config{Firmware: fidotest.CTAP20, PIN: "bbbb", Product: "Key B"})
	bench := fidotest.NewBench(a, b)
	var list []luks2.Token
	var enrolled []*tokens.Enrollment
	for i, p := range []string{"aaaa", "bbbb"} {
		h := &Handler{Dial: bench.Dial, Device: fidotest.Path(i)}
		tok, e := enroll(t, h, i, p)
		list, enrolled = append(list, tok), append(enrolled, e)
	}
	for i, k := range []*fidotest.Key{a, b} {
		other := []*fidotest.Key{b, a}[i]
		touches, before := other.Stats().Touches, k.Stats().Touches
		ui := tokentest.NewUI(t, tokentest.Typed([]string{"aaaa", "bbbb"}[i])...)
		got, err := unlock(t, &Handler{Dial: bench.Dial}, ui, opener(enrolled[i].Passphrase), list[i])
		wantUnlocked(t, got, err, enrolled[i])
		if other.Stats().Touches != touches || k.Stats().Touches != before+1 {
			t.Error("the wrong key was touched")
		}
		if text := ui.Prompts()[0].Text; text != fmt.Sprintf("PIN of Key %c", "AB"[i]) {
			t.Errorf("prompt %q", text)
		}
		if shown := ui.Shown(); len(shown) != 1 || !strings.HasPrefix(shown[0], fmt.Sprintf("Touch Key %c ", "AB"[i])) {
			t.Errorf("shown %q", shown)
		}
	}
	b.Unplug()
	_, err := unlock(t, &Handler{Dial: bench.Dial}, tokentest.NewUI(t), nil, list[1])
	wantError(t, err, tokens.ErrNoDevice, `key "Key B" is not plugged in; there is /dev/hidraw0 (Key A)`)
}

// Credentials that only show themselves to a verified user are looked for on the
// model of the enrolment first, so that the other key wants no finger.
func TestFingerprintKeysAreToldApartByModel(t *testing.T) {
	t.Parallel()
	a := fidotest.New(fidotest.Config{BuiltInUV: true, AAGUID: [16]byte{1}})
	b := fidotest.New(fidotest.Config{BuiltInUV: true, AAGUID: [16]byte{2}})
	bench := fidotest.NewBench(a, b)
	for i, k := range []*fidotest.Key{a, b} {
		other := []*fidotest.Key{b, a}[i]
		h := &Handler{Dial: bench.Dial, Device: fidotest.Path(i)}
		with(nil, nil, boolean(true))(h)
		tok, e := enroll(t, h, 0)
		before := other.Stats().Touches
		got, err := unlock(t, &Handler{Dial: bench.Dial}, tokentest.NewUI(t), opener(e.Passphrase), tok)
		wantUnlocked(t, got, err, e)
		if n := other.Stats().Touches - before; n != 0 {
			t.Errorf("the other key was touched %d times", n)
		}
		k.Unplug()
		_, err = unlock(t, &Handler{Dial: bench.Dial}, tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrNoDevice, "")
		k.PlugIn()
	}
}

func TestPromptsNameTheLabel(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin, Product: "Solo", AAGUID: [16]byte{0x88, 0x76, 0x63, 0x1b, 0xd4, 0xa0, 0x42, 0x7f, 0x57, 0x73, 0x0e, 0xc7, 0x1c, 0x9e, 0x02, 0x79}},
		func(t *testing.T, r *rig) {
			req := request()
			req.Label = "home\x1b[2J"
			e, err := r.handler().Enroll(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(pin)...))
			if err != nil {
				t.Fatal(err)
			}
			defer e.Passphrase.Wipe()
			ui := tokentest.NewUI(t, tokentest.Typed(pin)...)
			got, err := unlock(t, r.handler(), ui, nil, luks2.Token{Type: Type, Raw: e.Token})
			wantUnlocked(t, got, err, e)
			if p, s := ui.Prompts()[0].Text, ui.Shown()[0]; p != "PIN of Solo (label home[2J)" || s != "Touch Solo (label home[2J) to unlock" {
				t.Errorf("%q, %q", p, s)
			}
		})
}

func TestByLabel(t *testing.T) {
	t.Parallel()
	bench := fidotest.NewBench(fidotest.New(fidotest.Config{Product: "Key A"}), fidotest.New(fidotest.Config{Product: "Key B"}))
	a, _ := enroll(t, &Handler{Dial: bench.Dial, Device: "Key A"}, 0)
	b, e := enroll(t, &Handler{Dial: bench.Dial, Device: "Key B"}, 1)
	got, err := unlock(t, &Handler{Dial: bench.Dial, UnlockDevice: "Key B"}, tokentest.NewUI(t), nil, a, b)
	wantUnlocked(t, got, err, e)
	_, err = unlock(t, &Handler{Dial: bench.Dial, UnlockDevice: "Key C"}, tokentest.NewUI(t), nil, a, b)
	wantError(t, err, tokens.ErrNoDevice, "")
}

// After a wrong PIN the other key has its turn first.
func TestOtherKeyComesFirstAfterAWrongPIN(t *testing.T) {
	t.Parallel()
	bench := fidotest.NewBench(fidotest.New(fidotest.Config{PIN: "aaaa", Product: "Key A"}), fidotest.New(fidotest.Config{PIN: "bbbb", Product: "Key B"}))
	a, _ := enroll(t, &Handler{Dial: bench.Dial, Device: "Key A"}, 0, "aaaa")
	b, e := enroll(t, &Handler{Dial: bench.Dial, Device: "Key B"}, 1, "bbbb")
	h := &Handler{Dial: bench.Dial}
	ui := tokentest.NewUI(t, tokentest.Typed("wrong", "wrong")...)
	_, err := unlock(t, h, ui, nil, a, b)
	wantError(t, err, tokens.ErrWrongPIN, "")
	h = &Handler{Dial: bench.Dial, wrongPINs: map[string]int{fidotest.Path(0): 1}}
	ui = tokentest.NewUI(t, tokentest.Typed("bbbb")...)
	got, err := unlock(t, h, ui, nil, a, b)
	wantUnlocked(t, got, err, e)
}
