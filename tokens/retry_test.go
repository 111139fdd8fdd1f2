package tokens

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"luksmith/luks2/secret"
)

// pinStub asks for one PIN in each call of Unlock and ends with the next error.
type pinStub struct {
	stub
	ends  []error
	calls int
	asks  int // questions of one call
}

func (p *pinStub) Unlock(ctx context.Context, _ *UnlockRequest, ui UI) (*Unlocked, error) {
	err := p.ends[min(p.calls, len(p.ends)-1)]
	p.calls++
	for range p.asks {
		if _, askErr := ui.Ask(ctx, Prompt{}); askErr != nil {
			return nil, askErr
		}
	}
	if err != nil {
		return nil, err
	}
	return &Unlocked{}, nil
}

// typist answers so many questions.
type typist struct {
	UI
	answers int
}

func (t *typist) Ask(context.Context, Prompt) (secret.Secret, error) {
	if t.answers == 0 {
		return secret.Secret{}, ErrNoPrompt
	}
	t.answers--
	return secret.Secret{}, nil
}

func TestWrongPINsAreAskedForAgain(t *testing.T) {
	t.Parallel()
	wrong := &TokenError{Err: fmt.Errorf("%w: 7 tries left", ErrWrongPIN)}
	blocked := errors.Join(ErrWrongPIN, ErrLocked)
	for name, c := range map[string]struct {
		ends    []error
		asks    int
		answers int
		want    error
		calls   int
	}{
		"right":                      {[]error{nil}, 1, 9, nil, 1},
		"right at the second try":    {[]error{wrong, nil}, 1, 9, nil, 2},
		"never right":                {[]error{wrong}, 1, 9, ErrWrongPIN, 3},
		"blocked":                    {[]error{wrong, blocked, nil}, 1, 9, ErrLocked, 2},
		"only a credential":          {[]error{wrong, nil}, 1, 1, ErrWrongPIN, 2},
		"nobody was asked":           {[]error{wrong, nil}, 0, 9, ErrWrongPIN, 1},
		"type that asks by itself":   {[]error{wrong, nil}, 3, 9, ErrWrongPIN, 1},
		"declined":                   {[]error{ErrCancelled, nil}, 1, 9, ErrCancelled, 1},
		"another failure afterwards": {[]error{wrong, ErrNoDevice}, 1, 9, ErrNoDevice, 2},
	} {
		p := &pinStub{ends: c.ends, asks: c.asks}
		_, err := UnlockWithRetries(t.Context(), p, &UnlockRequest{}, &typist{answers: c.answers})
		if !errors.Is(err, c.want) || p.calls != c.calls {
			t.Errorf("%s: %v after %d calls, want %v after %d", name, err, p.calls, c.want, c.calls)
		}
	}
}
