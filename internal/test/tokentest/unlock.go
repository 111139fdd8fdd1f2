package tokentest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

func (s Subject) unlock(t *testing.T) {
	if _, ok := s.New(t).(tokens.Enroller); ok {
		s.unlockOwn(t)
	}
	t.Run("nothing to unlock with", func(t *testing.T) {
		got, err := s.New(t).(tokens.Unlocker).Unlock(t.Context(), &tokens.UnlockRequest{Volume: request().Volume}, NewUI(t))
		if err == nil || got != nil {
			t.Errorf("%v, %v, want an error", got, err)
		}
	})
	t.Run("malformed tokens", func(t *testing.T) {
		for _, tok := range s.malformedTokens(t, 3) {
			got, err := s.New(t).(tokens.Unlocker).Unlock(t.Context(), unlockRequest(nil, tok), NewUI(t))
			checkTokenError(t, got, err, tok.ID, tokens.ErrMalformed)
		}
	})
	if s.Absent != nil {
		t.Run("no device", func(t *testing.T) {
			req := unlockRequest(nil, s.token(t, 3, s.Valid[0].Token))
			got, err := s.Absent(t).(tokens.Unlocker).Unlock(t.Context(), req, NewUI(t))
			if !errors.Is(err, tokens.ErrNoDevice) || got != nil {
				t.Errorf("%v, %v, want ErrNoDevice", got, err)
			}
		})
	}
}

// unlockOwn unlocks what the handler itself enrolled.
func (s Subject) unlockOwn(t *testing.T) {
	e, err := s.New(t).(tokens.Enroller).Enroll(t.Context(), request(), NewUI(t, Typed(s.EnrollAnswers...)...))
	s.checkEnrollment(t, e, err)
	own := s.token(t, 5, string(e.Token))
	run := func(t *testing.T, ctx context.Context, req *tokens.UnlockRequest, ui *UI) (*tokens.Unlocked, error) {
		t.Helper()
		got, err := s.New(t).(tokens.Unlocker).Unlock(ctx, req, ui)
		if got != nil {
			t.Cleanup(got.Passphrase.Wipe)
		}
		return got, err
	}
	check := func(t *testing.T, got *tokens.Unlocked, err error) {
		t.Helper()
		if err != nil || got == nil {
			t.Fatalf("%v, %v", got, err)
		}
		if !got.Passphrase.Equal(e.Passphrase) {
			t.Error("another passphrase than the enrolment's comes back")
		}
		if got.Token.ID != own.ID {
			t.Errorf("token %d is said to have unlocked, want %d", got.Token.ID, own.ID)
		}
	}
	t.Run("own", func(t *testing.T) {
		got, err := run(t, t.Context(), unlockRequest(nil, own), NewUI(t, Typed(s.UnlockAnswers...)...))
		check(t, got, err)
	})
	t.Run("after malformed ones", func(t *testing.T) {
		opens := newOpener(e.Passphrase)
		req := unlockRequest(opens.try, append(s.malformedTokens(t, 6), own)...)
		got, err := run(t, t.Context(), req, NewUI(t, Typed(s.UnlockAnswers...)...))
		check(t, got, err)
		opens.checkOnce(t, own.ID)
	})
	t.Run("opens no keyslot", func(t *testing.T) {
		opens := newOpener(secret.Secret{})
		got, err := run(t, t.Context(), unlockRequest(opens.try, own), NewUI(t, Typed(s.UnlockAnswers...)...))
		checkTokenError(t, got, err, own.ID, tokens.ErrWrongKey)
		opens.checkOnce(t, own.ID)
		opens.checkWiped(t)
	})
	t.Run("error of the volume", func(t *testing.T) {
		broken := errors.New("reading keyslot 1: input/output error")
		opens := func(context.Context, luks2.Token, secret.Secret) error { return broken }
		got, err := run(t, t.Context(), unlockRequest(opens, own), NewUI(t, Typed(s.UnlockAnswers...)...))
		checkTokenError(t, got, err, own.ID, broken)
	})
	t.Run("cancelled", func(t *testing.T) {
		s.cancellations(t, s.UnlockAnswers, func(ctx context.Context, ui *UI) error {
			_, err := run(t, ctx, unlockRequest(nil, own), ui)
			return err
		})
	})
	if s.Absent != nil {
		t.Run("own without device", func(t *testing.T) {
			got, err := s.Absent(t).(tokens.Unlocker).Unlock(t.Context(), unlockRequest(nil, own), NewUI(t))
			if !errors.Is(err, tokens.ErrNoDevice) || got != nil {
				t.Errorf("%v, %v, want ErrNoDevice", got, err)
			}
		})
	}
}

type openFunc = func(context.Context, luks2.Token, secret.Secret) error

func unlockRequest(opens openFunc, list ...luks2.Token) *tokens.UnlockRequest {
	v := request().Volume
	v.Name, v.Tokens = "data", list
	return &tokens.UnlockRequest{Volume: v, Tokens: list, Opens: opens}
}

// malformedTokens are the subject's malformed tokens, numbered from first.
func (s Subject) malformedTokens(t *testing.T, first int) []luks2.Token {
	list := make([]luks2.Token, len(s.Malformed))
	for i, m := range s.Malformed {
		list[i] = s.token(t, first+i, m.Token)
	}
	return list
}

// checkTokenError wants the failure of one token for one reason.
func checkTokenError(t *testing.T, got *tokens.Unlocked, err error, id int, want error) {
	t.Helper()
	if got != nil || !errors.Is(err, want) {
		t.Fatalf("%v, %v, want an error: %v", got, err, want)
	}
	te, ok := errors.AsType[*tokens.TokenError](err)
	if !ok || te.ID != id {
		t.Errorf("%v is not the TokenError of token %d", err, id)
	}
	for text := range strings.SplitSeq(err.Error(), "\n") { // of errors.Join
		if !plain(text) {
			t.Errorf("the error is not escaped: %q", err)
		}
	}
}

// opener stands for the keyslots of a volume.
type opener struct {
	right secret.Secret
	tried map[int]int // token id: passphrases tried
	seen  []secret.Secret
}

func newOpener(right secret.Secret) *opener { return &opener{right: right, tried: map[int]int{}} }

func (o *opener) try(_ context.Context, tok luks2.Token, passphrase secret.Secret) error {
	o.tried[tok.ID]++
	o.seen = append(o.seen, passphrase)
	if o.right.Len() > 0 && passphrase.Equal(o.right) {
		return nil
	}
	return tokens.ErrWrongKey
}

// checkOnce wants one passphrase tried on one token and none on others.
func (o *opener) checkOnce(t *testing.T, id int) {
	t.Helper()
	if len(o.tried) != 1 || o.tried[id] != 1 {
		t.Errorf("passphrases tried per token: %v, want one on token %d", o.tried, id)
	}
}

// checkWiped wants that no passphrase outlived the call.
func (o *opener) checkWiped(t *testing.T) {
	t.Helper()
	for _, s := range o.seen {
		if s.Len() != 0 {
			t.Error("a passphrase that opens nothing was not wiped")
		}
	}
}
