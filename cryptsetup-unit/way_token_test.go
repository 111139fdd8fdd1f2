package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

func TestTokenWay(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script []func(*tokens.UnlockRequest) error
		wait   time.Duration
		events watchFunc
		want   error
		took   time.Duration
		calls  int
	}{
		"present":                      {[]func(*tokens.UnlockRequest) error{opens}, 0, nil, nil, 0, 1},
		"absent, not waited for":       {[]func(*tokens.UnlockRequest) error{absent}, 0, nil, tokens.ErrNoDevice, 0, 1},
		"came before the subscription": {[]func(*tokens.UnlockRequest) error{absent, opens}, 30 * time.Second, eventsAt(), nil, 0, 2},
		"plugged in later":             {[]func(*tokens.UnlockRequest) error{absent, absent, opens}, 30 * time.Second, eventsAt(3 * time.Second), nil, 3 * time.Second, 3},
		"another device first":         {[]func(*tokens.UnlockRequest) error{absent, absent, absent, opens}, 30 * time.Second, eventsAt(3*time.Second, 4*time.Second), nil, 4 * time.Second, 4},
		"24*time.Hour":                 {[]func(*tokens.UnlockRequest) error{absent}, 30 * time.Second, eventsAt(3 * time.Second), tokens.ErrTimeout, 30 * time.Second, 3},
		"unplugged again":              {[]func(*tokens.UnlockRequest) error{absent, absent, fails(tokens.ErrNoDevice), opens}, 30 * time.Second, eventsAt(time.Second, 9*time.Second), nil, 9 * time.Second, 4},
		"policy":                       {[]func(*tokens.UnlockRequest) error{fails(tokens.ErrPolicy)}, 30 * time.Second, nil, tokens.ErrPolicy, 0, 1},
		"one fails, one is absent":     {[]func(*tokens.UnlockRequest) error{fails(errors.Join(tokenFails(0, tokens.ErrPolicy), tokenFails(1, tokens.ErrNoDevice))), opens}, 30 * time.Second, eventsAt(), nil, 0, 2},
		"forever":                      {[]func(*tokens.UnlockRequest) error{absent, absent, opens}, crypttab.Forever, eventsAt(40 * time.Hour), nil, 40 * time.Hour, 3},
		"events fail":                  {[]func(*tokens.UnlockRequest) error{absent}, time.Second, func(context.Context, ...string) (<-chan struct{}, error) { return nil, errors.New("no netlink") }, errors.New("no netlink"), 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, ui := &plug{typ: "fido2", script: tt.script}, &screen{}
			w := &tokenWay{types: []*tokenType{{handler: p, tokens: twoTokens()}}, ui: ui, try: opensRight, watch: tt.events, wait: tt.wait}
			start := time.Now()
			f, err := w.Open(t.Context(), func(bool) {})
			if tt.want == nil && (err != nil || f.By != "fido2 token" || f.Slot != 3) || tt.want != nil && (err == nil || !errors.Is(err, tt.want) && !strings.Contains(err.Error(), tt.want.Error())) {
				t.Errorf("%s: %+v, %v; want %v", name, f, err, tt.want)
			}
			if f != nil {
				f.Key.Wipe()
			}
			if took := time.Since(start); took != tt.took || p.calls != tt.calls {
				t.Errorf("%s: %v and %d calls, want %v and %d", name, took, p.calls, tt.took, tt.calls)
			}
			if ui.open != 0 {
				t.Errorf("%s: a notice is still shown", name)
			}
		})
	}
}

// TestTokenThatFailedIsNotTriedAgain protects PIN counters: only tokens whose device
// is missing come back after an event.
func TestTokenThatFailedIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{
			fails(errors.Join(tokenFails(0, tokens.ErrWrongPIN), tokenFails(1, tokens.ErrNoDevice))), absent}}
		w := &tokenWay{types: []*tokenType{{handler: p, tokens: twoTokens()}}, ui: &screen{}, try: opensRight, watch: eventsAt(time.Second), wait: 5 * time.Second}
		_, err := w.Open(t.Context(), func(bool) {})
		if !errors.Is(err, tokens.ErrWrongPIN) || !errors.Is(err, tokens.ErrTimeout) {
			t.Errorf("both failures are to be reported: %v", err)
		}
		if got := fmt.Sprint(p.seen); got != "[[0 1] [1] [1]]" {
			t.Errorf("tokens of the calls: %s", got)
		}
	})
}

// TestMistypedPINIsAskedForAgain: the symptom was that one wrong PIN ended the token.
func TestMistypedPINIsAskedForAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wrong := fails(errors.Join(tokenFails(0, tokens.ErrWrongPIN), tokenFails(1, tokens.ErrWrongPIN)))
		p := &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{wrong, opens}, asks: true}
		w := &tokenWay{types: []*tokenType{{handler: p, tokens: twoTokens()}}, ui: &screen{takes: time.Second}, try: opensRight}
		f, err := w.Open(t.Context(), func(bool) {})
		if err != nil || p.calls != 2 {
			t.Fatalf("%v after %d calls", err, p.calls)
		}
		f.Key.Wipe()
	})
}

// TestBlockedDeviceIsWaitedForUntilItIsPluggedInAgain: nobody is asked for a PIN
// that the device would refuse, and the time for plugging begins when it is told.
func TestBlockedDeviceIsWaitedForUntilItIsPluggedInAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		blocked := fails(tokenFails(0, fmt.Errorf("%w: unplug it: %w", tokens.ErrLocked, tokens.ErrReplug)))
		p := &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{blocked, opens}, asks: true}
		ui := &screen{takes: 9 * time.Second}
		w := &tokenWay{types: []*tokenType{{handler: p, tokens: twoTokens()}}, ui: ui, try: opensRight, watch: eventsAt(4 * time.Second), wait: 5 * time.Second}
		start := time.Now()
		f, err := w.Open(t.Context(), func(bool) {})
		if err != nil || p.calls != 2 || time.Since(start) != (9+4+9)*time.Second {
			t.Fatalf("%v after %d calls and %v", err, p.calls, time.Since(start))
		}
		f.Key.Wipe()
		if len(ui.notes) != 1 || !strings.Contains(ui.notes[0], "unplug it") {
			t.Errorf("told: %q", ui.notes)
		}
	})
}

// TestDeviceThatIsThereIsNotCalledAbsent: what is wrong with it is said before anything
// is waited for, once, and stands in the error.
func TestDeviceThatIsThereIsNotCalledAbsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := errors.New("Key B at /dev/hidraw1: it does not answer")
		blocked := fmt.Errorf("Key A at /dev/hidraw0: %w: unplug it and plug it in again", tokens.ErrLocked)
		p := &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{
			fails(errors.Join(tokenFails(0, tokens.ErrNoDevice), tokenFails(1, tokens.ErrNoDevice), errors.Join(silent, blocked)))}}
		ui := &screen{}
		w := &tokenWay{types: []*tokenType{{handler: p, tokens: twoTokens()}}, ui: ui, try: opensRight, watch: eventsAt(time.Second, 2*time.Second), wait: 5 * time.Second}
		_, err := w.Open(t.Context(), func(bool) {})
		if got := strings.Join(ui.notes, "; "); got != silent.Error()+"; "+blocked.Error() {
			t.Errorf("told: %s", got)
		}
		if cli.ExitStatus(err) != cli.ExitLockout || !strings.Contains(err.Error(), blocked.Error()) || !strings.Contains(err.Error(), silent.Error()) {
			t.Errorf("status %d: %v", cli.ExitStatus(err), err)
		}
	})
}

// TestUnpluggedDeviceGetsItsTimeAnew: the time-out is for its absence.
func TestUnpluggedDeviceGetsItsTimeAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{fails(tokens.ErrNoDevice), fails(tokens.ErrNoDevice), opens}, asks: true}
		w := &tokenWay{types: []*tokenType{{handler: p, tokens: twoTokens()}}, ui: &screen{takes: 7 * time.Second}, try: opensRight,
			watch: eventsAt(11 * time.Second), wait: 5 * time.Second}
		f, err := w.Open(t.Context(), func(bool) {})
		if err != nil {
			t.Fatal(err)
		}
		f.Key.Wipe()
	})
}

// TestAbsentTypeDoesNotHoldUpTheOthers has two types in one way.
func TestAbsentTypeDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{absent}}
		chip := &plug{typ: "tpm2", script: []func(*tokens.UnlockRequest) error{absent, opens}}
		ui := &screen{}
		w := &tokenWay{types: []*tokenType{{handler: away, tokens: twoTokens()}, {handler: chip, tokens: twoTokens()}}, ui: ui, try: opensRight,
			watch: func(ctx context.Context, subsystems ...string) (<-chan struct{}, error) {
				if got := strings.Join(subsystems, " "); got != "fido2-subsystem tpm2-subsystem" {
					t.Errorf("watches %q", got)
				}
				return eventsAt(time.Second)(ctx)
			}, wait: 5 * time.Second}
		f, err := w.Open(t.Context(), func(bool) {})
		if err != nil || f.By != "tpm2 token" {
			t.Fatalf("%+v, %v", f, err)
		}
		f.Key.Wipe()
	})
}

func TestTokenWayNamesWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ui := &screen{}
		w := &tokenWay{types: []*tokenType{{handler: &plug{typ: "fido2", script: []func(*tokens.UnlockRequest) error{absent}}, tokens: twoTokens()}},
			ui: ui, try: opensRight, watch: eventsAt(), wait: 90 * time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var states []bool
		_, err := w.Open(ctx, func(busy bool) { states = append(states, busy) })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if len(ui.shown) != 1 || ui.shown[0] != "waiting for a security device (fido2) for up to 1m30s" || ui.open != 0 {
			t.Errorf("shown: %q", ui.shown)
		}
		if len(states) != 1 || states[0] {
			t.Errorf("busy: %v", states)
		}
	})
}

// reader is a token type whose cards make no event of the kernel: each call of
// WaitDevice ends with the next step.
type reader struct {
	plug
	steps   []cardStep
	waits   int
	waiting bool
}

// cardStep is what WaitDevice returns after a time.
type cardStep struct {
	after time.Duration
	err   error
}

func (r *reader) WaitDevice(ctx context.Context) error {
	r.waiting = true
	defer func() { r.waiting = false }()
	step := r.steps[min(r.waits, len(r.steps)-1)]
	r.waits++
	select {
	case <-time.After(step.after):
		return step.err
	case <-ctx.Done():
		time.Sleep(time.Millisecond) // a process has to be ended
		return ctx.Err()
	}
}

func (r *reader) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	if r.waiting {
		return nil, errors.New("called while it waits")
	}
	return r.plug.Unlock(ctx, req, ui)
}

// TestCardThatTheKernelDoesNotSee is put into a reader that was there already.
func TestCardThatTheKernelDoesNotSee(t *testing.T) {
	t.Parallel()
	script := func(missing int) []func(*tokens.UnlockRequest) error {
		return append(slices.Repeat([]func(*tokens.UnlockRequest) error{absent}, missing), opens)
	}
	for name, tt := range map[string]struct {
		steps  []cardStep
		script []func(*tokens.UnlockRequest) error
		events watchFunc
		want   error
		took   time.Duration // a millisecond more for each wait that an event ended
		waits  int
	}{
		"put in":               {[]cardStep{{3 * time.Second, nil}}, script(2), eventsAt(), nil, 3 * time.Second, 1},
		"another card first":   {[]cardStep{{3 * time.Second, nil}, {4 * time.Second, nil}}, script(3), eventsAt(), nil, 7 * time.Second, 2},
		"reader after card":    {[]cardStep{{time.Hour, nil}}, script(2), eventsAt(2 * time.Second), nil, 2*time.Second + time.Millisecond, 1},
		"cannot be waited for": {[]cardStep{{0, errors.New("no helper")}}, script(2), eventsAt(2 * time.Second), nil, 2 * time.Second, 1},
		"24*time.Hour":         {[]cardStep{{time.Hour, nil}}, script(9), eventsAt(), tokens.ErrTimeout, 30*time.Second + time.Millisecond, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &reader{plug: plug{typ: "pkcs11", script: tt.script}, steps: tt.steps}
			w := &tokenWay{types: []*tokenType{{handler: r, tokens: twoTokens()}}, ui: &screen{}, try: opensRight, watch: tt.events, wait: 30 * time.Second}
			start := time.Now()
			f, err := w.Open(t.Context(), func(bool) {})
			if !errors.Is(err, tt.want) || r.waiting {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
			if f != nil {
				f.Key.Wipe()
			}
			if took := time.Since(start); took != tt.took || r.waits != tt.waits {
				t.Errorf("%s: %v and %d waits, want %v and %d", name, took, r.waits, tt.took, tt.waits)
			}
		})
	}
}

func TestKeyDataFromKeyFile(t *testing.T) {
	t.Parallel()
	p := &plug{typ: "tpm2", script: []func(*tokens.UnlockRequest) error{opens}}
	reads := 0
	tt := &tokenType{handler: p, keyData: func(context.Context) (secret.Secret, error) { reads++; return secret.Copy([]byte("blob")), nil }}
	w := &tokenWay{types: []*tokenType{tt}, ui: &screen{}, try: opensRight}
	f, err := w.Open(t.Context(), func(bool) {})
	if err != nil || f.Token != -1 || p.keyData[0] != "blob" || reads != 1 {
		t.Errorf("%+v, %v, %q", f, err, p.keyData)
	}
	f.Key.Wipe()
}

// TestUntouchedKeyEndsTheWayWhereNobodyIsAsked: a key that is plugged in and blinks
// for nobody held a headless boot up without end. The time counts from the first
// request; one that is answered begins it anew, and where a passphrase is asked for
// the key may blink on.
func TestUntouchedKeyEndsTheWayWhereNobodyIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := &blinking{plug: plug{typ: "fido2"}, texts: []string{"first", "second", "second", "second"}, each: 6 * time.Second}
		w := &tokenWay{types: []*tokenType{{handler: key, tokens: twoTokens()}}, ui: &screen{}, try: opensRight, patience: 10 * time.Second}
		start := time.Now()
		_, err := w.Open(t.Context(), func(bool) {})
		if !errors.Is(err, tokens.ErrTimeout) || !strings.Contains(err.Error(), `"second": nobody answered within 10s`) || time.Since(start) != 16*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if cli.ExitStatus(err) != cli.ExitTimedOut {
			t.Errorf("status %d", cli.ExitStatus(err))
		}
		for _, patience := range []time.Duration{0, crypttab.Forever} {
			key.calls, w.types[0].done, w.patience, start = 0, false, patience, time.Now()
			f, err := w.Open(t.Context(), func(bool) {})
			if err != nil || time.Since(start) != 24*time.Second {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
			f.Key.Wipe()
		}
	})
}

// blinking is a token type that shows one request after the other.
type blinking struct {
	plug
	texts []string
	each  time.Duration
}

func (b *blinking) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	for _, text := range b.texts {
		done := ui.Show(text)
		select {
		case <-ctx.Done():
			done()
			return nil, context.Cause(ctx)
		case <-time.After(b.each):
			done()
		}
	}
	b.script = []func(*tokens.UnlockRequest) error{opens}
	return b.plug.Unlock(ctx, req, ui)
}
