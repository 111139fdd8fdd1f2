package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// TestTokenThatRenamesItselfGetsFewPINs: its serial number is another one each time.
func TestTokenThatRenamesItselfGetsFewPINs(t *testing.T) {
	t.Parallel()
	sent := 0
	conn := helper.Pipe(wire.Program, map[string]helper.Method{
		wire.MethodLogin: func(context.Context, *helper.Request) (*helper.Reply, error) {
			sent++
			return nil, nil
		},
	})
	s := &session{conn: conn, timeout: defaultTimeout}
	defer s.close()
	var m memory
	pin := secret.Copy([]byte("1234"))
	defer pin.Wipe()
	var last error
	for i := range 5 * maxPINs {
		r := &run{h: &Handler{}, ui: tokentest.NewUI(t), pins: &pins{}, memory: &m}
		last = r.loginWith(t.Context(), s, &wire.Token{Serial: fmt.Append(nil, i)}, pin)
		r.pins.wipe()
	}
	if sent != maxPINs || last == nil || !strings.Contains(last.Error(), "not sent") {
		t.Errorf("%d PINs were sent, %v", sent, last)
	}
}

func TestTokensThatChangeWithoutEndAreNotWatchedForEver(t *testing.T) {
	t.Parallel()
	h := &Handler{memory: memory{changes: maxChanges}}
	if err := h.noteChange(t.Context()); err == nil {
		t.Error("one more change is believed")
	}
}

// waiting is a person who does not answer.
type waiting struct{ tokens.Nobody }

func (waiting) Ask(ctx context.Context, _ tokens.Prompt) (secret.Secret, error) {
	<-ctx.Done()
	return secret.Secret{}, context.Cause(ctx)
}

// TestQuestionGoesWithTheCard: it stayed on the screen when the card was pulled out.
func TestQuestionGoesWithTheCard(t *testing.T) {
	t.Parallel()
	conn := helper.Pipe(wire.Program, map[string]helper.Method{
		wire.MethodTokens: func(context.Context, *helper.Request) (*helper.Reply, error) {
			return &helper.Reply{Result: wire.Tokens{}}, nil
		},
	})
	s := &session{conn: conn, timeout: defaultTimeout}
	defer s.close()
	r := &run{h: &Handler{}, ui: waiting{}, pins: &pins{}, memory: &memory{}}
	if _, err := r.ask(t.Context(), s, &wire.Token{Slot: 1, Label: []byte("card")}, 0); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("%v", err)
	}
}
