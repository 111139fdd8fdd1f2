package tokentest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// recorder is a testing.TB that notes failures and runs cleanups when told.
type recorder struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func TestUIFollowsTheScript(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u := NewUI(t, Answer{Text: "one"}, Answer{Err: tokens.ErrCancelled}, Answer{Wait: true, Before: func(tokens.Prompt) { cancel() }})
	one, err := u.Ask(ctx, tokens.Prompt{Text: "PIN", Credential: "toy-pin"})
	if err != nil || secret.UnsafeString(one) != "one" {
		t.Errorf("first answer: %v", err)
	}
	one.Wipe()
	if _, err := u.Ask(ctx, tokens.Prompt{Text: "again", Attempt: 1}); !errors.Is(err, tokens.ErrCancelled) {
		t.Errorf("second answer: %v", err)
	}
	if _, err := u.Ask(ctx, tokens.Prompt{Text: "third"}); !errors.Is(err, context.Canceled) {
		t.Errorf("third answer: %v", err)
	}
	done := u.Show("touch the key")
	done()
	done()
	u.Note("touched")
	if p := u.Prompts(); len(p) != 3 || p[1].Attempt != 1 {
		t.Errorf("prompts: %+v", p)
	}
	if fmt.Sprint(u.Shown(), u.Notes()) != "[touch the key] [touched]" {
		t.Errorf("shown %q, notes %q", u.Shown(), u.Notes())
	}
}

func TestUIFindsTheTriesLeft(t *testing.T) {
	p := tokens.Prompt{Text: "PIN", Tries: func(context.Context) (int, error) { return 3, nil }}
	u := NewUI(t, Answer{}, Answer{Tries: true}, Answer{Tries: true})
	for range 2 {
		if pin, err := u.Ask(t.Context(), p); err != nil || pin.Len() != 0 {
			t.Errorf("%d bytes, %v", pin.Len(), err)
		}
	}
	p.Tries = func(context.Context) (int, error) { return 0, tokens.ErrLocked }
	if _, err := u.Ask(t.Context(), p); !errors.Is(err, tokens.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	if asked := u.Prompts(); asked[0].TriesLeft != 0 || asked[1].TriesLeft != 3 {
		t.Errorf("tries left: %d and %d, want 0 and 3", asked[0].TriesLeft, asked[1].TriesLeft)
	}
}

func TestUIFailsTheTest(t *testing.T) {
	for name, misuse := range map[string]func(*UI){
		"unexpected question": func(u *UI) { _, _ = u.Ask(context.Background(), tokens.Prompt{Text: "PIN"}) },
		"colon": func(u *UI) {
			u.answers = []Answer{{Err: tokens.ErrCancelled}}
			_, _ = u.Ask(context.Background(), tokens.Prompt{Text: "PIN: "})
		},
		"credential": func(u *UI) {
			u.answers = []Answer{{Err: tokens.ErrCancelled}}
			_, _ = u.Ask(context.Background(), tokens.Prompt{Text: "PIN", Credential: "../pin"})
		},
		"answer left over": func(u *UI) { u.answers = Typed("1") },
		"line left":        func(u *UI) { u.Show("touch") },
		"answer not wiped": func(u *UI) {
			u.answers = Typed("1")
			_, _ = u.Ask(context.Background(), tokens.Prompt{Text: "PIN"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			misuse(NewUI(r))
			for _, f := range r.cleanups {
				f()
			}
			if len(r.failures) != 1 {
				t.Errorf("failures: %q, want one", r.failures)
			}
		})
	}
}
