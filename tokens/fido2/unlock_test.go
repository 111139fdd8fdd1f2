package fido2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
		wantError(t, err, tokens.ErrNoPrompt, "token 0")
	})
}

func TestGivingUpAtThePINEndsEverything(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		a, _ := enroll(t, r.handler(), 0, pin)
		b, _ := enroll(t, r.handler(), 1, pin)
		_, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrCancelled}), opener(), a, b)
		wantError(t, err, tokens.ErrCancelled, "token 0")
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

func TestTouchThatComesLate(t *testing.T) {
	onBoth(t, fidotest.Config{TouchTimeout: 100 * time.Millisecond}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(), 0)
		r.key.SetTouch(fidotest.Touch{Never: true})
		ended := make(chan struct{})
		go func() { // touch it once it has timed out twice, however long that takes
			defer close(ended)
			for r.key.Stats().TimedOut < 2 && t.Context().Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			r.key.SetTouch(fidotest.Touch{})
		}()
		ui := tokentest.NewUI(t)
		got, err := unlock(t, r.handler(), ui, nil, tok)
		<-ended
		wantUnlocked(t, got, err, e)
		if n := r.key.Stats().TimedOut; n < 2 || len(ui.Shown()) != n+1 {
			t.Errorf("%d time-outs, shown %q", n, ui.Shown())
		}
	})
}

// No touch ever: the caller's deadline ends it, and the key stops blinking.
func TestNoTouchUntilTheDeadline(t *testing.T) {
	onBoth(t, fidotest.Config{}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 0)
		r.key.SetTouch(fidotest.Touch{Never: true})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := r.handler().Unlock(ctx, &tokens.UnlockRequest{Volume: volume(tok), Tokens: []luks2.Token{tok}}, tokentest.NewUI(t))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestUnpluggedDuringTheTouch(t *testing.T) {
	t.Run("libfido2", func(t *testing.T) {
		t.Parallel()
		k := fidotest.New(fidotest.Config{PIN: pin})
		path, err := k.Terminal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h := &Handler{Dial: fidotest.Dial(t), Device: path, UnlockDevice: path}
		tok, _ := enroll(t, h, 0, pin)
		k.Configure(func(c *fidotest.Config) { c.Fault = fidotest.UnplugOnTouch })
		_, err = unlock(t, h, tokentest.NewUI(t, tokentest.Typed(pin)...), nil, tok)
		wantError(t, err, tokens.ErrNoDevice, "was unplugged")
	})
	t.Run("bench", func(t *testing.T) {
		t.Parallel()
		k := fidotest.New(fidotest.Config{PIN: pin})
		h := &Handler{Dial: fidotest.NewBench(k).Dial}
		tok, e := enroll(t, h, 0, pin)
		k.Configure(func(c *fidotest.Config) { c.Fault = fidotest.UnplugOnTouch })
		_, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed(pin)...), nil, tok)
		wantError(t, err, tokens.ErrNoDevice, "was unplugged")
		_, err = unlock(t, h, tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrNoDevice, "not plugged in")
		k.PlugIn()
		ui := tokentest.NewUI(t, tokentest.Typed(pin)...)
		got, err := unlock(t, h, ui, nil, tok)
		wantUnlocked(t, got, err, e)
		if ui.Prompts()[0].Attempt != 0 {
			t.Error("unplugging counts as a wrong PIN")
		}
	})
}

// At boot two volumes may want the same key at the same time: the second waits
// until the first has got its touch.
func TestTwoUnlocksOfOneKeyAtTheSameTime(t *testing.T) {
	t.Parallel()
	k := fidotest.New(fidotest.Config{})
	path, err := k.Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	handler := func() *Handler { return &Handler{Dial: fidotest.Dial(t), Device: path, UnlockDevice: path} }
	tok, e := enroll(t, handler(), 0)
	k.SetTouch(fidotest.Touch{After: 700 * time.Millisecond})
	results := make(chan error, 3)
	uis := []*tokentest.UI{tokentest.NewUI(t), tokentest.NewUI(t), tokentest.NewUI(t)}
	for _, ui := range uis {
		go func() {
			got, err := handler().Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}, Opens: opener(e.Passphrase)}, ui)
			if err == nil {
				got.Passphrase.Wipe()
			}
			results <- err
		}()
	}
	for range uis {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := k.Stats().Touches; n != 3+len(uis) {
		t.Errorf("%d touches", n)
	}
}

func TestSilentKeyDoesNotHoldUpTheOther(t *testing.T) {
	t.Parallel()
	bench := fidotest.NewBench(fidotest.New(fidotest.Config{Product: "Key A", Fault: fidotest.Silent}), fidotest.New(fidotest.Config{Product: "Key B"}))
	limited := func() *Handler { return &Handler{Dial: bench.Dial, answerLimit: 100 * time.Millisecond} }
	h := limited()
	h.Device = fidotest.Path(1)
	tok, e := enroll(t, h, 0)
	got, err := unlock(t, limited(), tokentest.NewUI(t), nil, tok)
	wantUnlocked(t, got, err, e)
	bench.Put(fidotest.Path(1), fidotest.New(fidotest.Config{Product: "Key C"}))
	_, err = unlock(t, limited(), tokentest.NewUI(t), nil, tok)
	wantError(t, err, tokens.ErrNoDevice, "Key A does not answer")
}

func TestSilentKeyIsGivenUp(t *testing.T) {
	for name, fault := range map[string]fidotest.Fault{"all": fidotest.Silent, "commands": fidotest.SilentCommands} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, fidotest.Config{}, func(t *testing.T, r *rig) {
				tok, _ := enroll(t, r.handler(), 0)
				r.key.Configure(func(c *fidotest.Config) { c.Fault = fault })
				h := r.handler(func(h *Handler) { h.answerLimit, h.touchLimit = time.Second, time.Second })
				begin := time.Now()
				_, err := unlock(t, h, tokentest.NewUI(t), nil, tok)
				wantError(t, err, tokens.ErrTimeout, "does not answer")
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestFaultyKeysAtUnlock(t *testing.T) {
	for fault, is := range map[fidotest.Fault]error{fidotest.NotCBOR: nil, fidotest.WrongCBOR: nil, fidotest.ShortSecret: nil,
		fidotest.NoSecret: nil, fidotest.FickleSecret: tokens.ErrWrongKey} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			onBoth(t, fidotest.Config{}, func(t *testing.T, r *rig) {
				tok, e := enroll(t, r.handler(), 0)
				r.key.Configure(func(c *fidotest.Config) { c.Fault = fault })
				h := r.handler(func(h *Handler) { h.answerLimit = 3 * time.Second })
				got, err := unlock(t, h, tokentest.NewUI(t), opener(e.Passphrase), tok)
				if err == nil || got != nil || is != nil && !errors.Is(err, is) {
					t.Errorf("%v, %v", got, err)
				}
			})
		})
	}
}

func TestFingerprints(t *testing.T) {
	uv := with(boolean(false), nil, boolean(true))
	onBoth(t, fidotest.Config{PIN: pin, BuiltInUV: true}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(uv), 0)
		ui := tokentest.NewUI(t)
		got, err := unlock(t, r.handler(), ui, opener(e.Passphrase), tok)
		wantUnlocked(t, got, err, e)
		if len(ui.Shown()) != 1 || !strings.Contains(ui.Shown()[0], "fingerprint") {
			t.Errorf("shown %q", ui.Shown())
		}
		// No finger matches: after the tries the PIN does as well, for the same
		// secret.
		r.key.SetFinger(false)
		ui = tokentest.NewUI(t, tokentest.Typed(pin)...)
		got, err = unlock(t, r.handler(), ui, opener(e.Passphrase), tok)
		wantUnlocked(t, got, err, e)
		if len(ui.Notes()) != 1 {
			t.Errorf("notes %q", ui.Notes())
		}
	})
}

func TestBlockedFingerprintReaderWithoutPIN(t *testing.T) {
	onBoth(t, fidotest.Config{BuiltInUV: true}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(with(nil, nil, boolean(true))), 0)
		r.key.SetFinger(false)
		_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrLocked, "too many wrong ones")
	})
}

// The reader is blocked already; the PIN unblocks it.
func TestReaderBlockedBefore(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin, BuiltInUV: true}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(with(boolean(false), nil, boolean(true))), 0)
		r.key.SetFinger(false)
		for range 2 {
			got, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), nil, tok)
			wantUnlocked(t, got, err, e)
		}
	})
}

// change rewrites members of a token as somebody with a hex editor would.
func change(t *testing.T, tok luks2.Token, name, value string) luks2.Token {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(tok.Raw, &m); err != nil {
		t.Fatal(err)
	}
	m[name] = json.RawMessage(value)
	if value == "" {
		delete(m, name)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	tok.Raw = raw
	return tok
}

func TestFlippedPINFlagIsNamed(t *testing.T) {
	for name, config := range map[string]fidotest.Config{"CTAP 2.1": {PIN: pin}, "CTAP 2.0": {PIN: pin, Firmware: fidotest.CTAP20}} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, config, func(t *testing.T, r *rig) {
				tok, e := enroll(t, r.handler(), 0, pin)
				_, err := unlock(t, r.handler(), tokentest.NewUI(t), opener(e.Passphrase), change(t, tok, memberPIN, "false"))
				wantError(t, err, tokens.ErrWrongKey, "fido2-clientPin-required")
				touch, e2 := enroll(t, r.handler(withoutPIN, func(h *Handler) { h.WithUP = boolean(true) }), 1, answersFor(config)...)
				_, err = unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), opener(e2.Passphrase), change(t, touch, memberPIN, "true"))
				wantError(t, err, tokens.ErrWrongKey, "fido2-clientPin-required")
			})
		})
	}
}

// answersFor is the PIN if the firmware wants one for any credential.
func answersFor(c fidotest.Config) []string {
	if c.Firmware == fidotest.CTAP20 {
		return []string{c.PIN}
	}
	return nil
}

// Tokens of systemd 248 have no flags: the key decides.
func TestTokensWithoutFlags(t *testing.T) {
	strip := func(t *testing.T, tok luks2.Token) luks2.Token {
		for _, m := range []string{memberPIN, memberUP, memberUV} {
			tok = change(t, tok, m, "")
		}
		return tok
	}
	for name, tt := range map[string]struct {
		config  fidotest.Config
		set     func(*Handler)
		enrolls []string
		unlocks []string
	}{
		"touch, firmware A":    {fidotest.Config{PIN: pin}, withoutPIN, nil, nil},
		"touch, firmware B":    {fidotest.Config{PIN: pin, Firmware: fidotest.CTAP20}, withoutPIN, []string{pin}, nil},
		"PIN that is demanded": {fidotest.Config{PIN: pin, AlwaysUV: true}, with(nil, nil, nil), []string{pin}, []string{pin}},
		"nothing is demanded":  {fidotest.Config{Firmware: fidotest.CTAP20}, with(nil, boolean(false), nil), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, tt.config, func(t *testing.T, r *rig) {
				tok, e := enroll(t, r.handler(tt.set), 0, tt.enrolls...)
				got, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(tt.unlocks...)...), opener(e.Passphrase), strip(t, tok))
				wantUnlocked(t, got, err, e)
			})
		})
	}
}

// A key that began to verify always (alwaysUv switched on after the enrolment).
func TestKeyDemandsMoreThanAtEnrollment(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(withoutPIN), 0)
		r.key.Configure(func(c *fidotest.Config) { c.AlwaysUV = true })
		_, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), opener(e.Passphrase), tok)
		wantError(t, err, tokens.ErrWrongKey, "demands one now")
	})
}

func TestTokensThatAreNotTried(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 3, pin)
		future := change(t, tok, "fido2-future", `"x"`)
		broken := change(t, tok, memberSalt, `""`)
		broken.ID = 4
		before := r.key.Stats()
		_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, future, broken)
		wantError(t, err, tokens.ErrUnsupported, `token 3 (systemd-fido2): token uses a feature unknown to this version: member "fido2-future"`)
		wantError(t, err, tokens.ErrMalformed, `token 4 (systemd-fido2): member "fido2-salt"`)
		if r.key.Stats() != before {
			t.Error("the key was used")
		}
	})
}
