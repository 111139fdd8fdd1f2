package fido2

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

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
