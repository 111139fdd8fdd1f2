package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
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

// crashing is a helper whose module ends it at each login, and whose token calls
// itself otherwise each time.
type crashing struct {
	serial int
}

func (c *crashing) Call(_ context.Context, call helper.Call, result any) ([]secret.Secret, error) {
	switch call.Method {
	case wire.MethodLogin:
		return nil, helper.ErrCrashed
	case wire.MethodTokens:
		*result.(*wire.Tokens) = wire.Tokens{Tokens: []wire.Token{{Serial: fmt.Append(nil, c.serial), LoginRequired: true, Initialized: true, PINSet: true}}}
	}
	return nil, nil
}

func (*crashing) Close() error { return nil }

// TestProcessesOfOneCallAreBounded: such a token had 1064 of them started.
func TestProcessesOfOneCallAreBounded(t *testing.T) {
	t.Parallel()
	started := 0
	h := &Handler{Connect: func(context.Context) (helper.Conn, error) {
		if started++; started > 10*maxSessions {
			return nil, errors.New("without end")
		}
		return &crashing{serial: started}, nil
	}}
	_, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, withURI(t, "systemd257-rsa", "pkcs11:object=rsa"))}}, &answering{t: t, pins: map[string]string{"PIN of PKCS#11 token": "1234"}})
	if started != maxSessions || !errors.Is(err, helper.ErrCrashed) {
		t.Errorf("%d processes, want %d; %v", started, maxSessions, err)
	}
}

// desk is a helper with three tokens: one crashes the module when its keys are read,
// one refuses that with a code about PINs, one is in order.
type desk struct{ key []byte }

func (d *desk) Call(_ context.Context, call helper.Call, result any) ([]secret.Secret, error) {
	switch call.Method {
	case wire.MethodTokens:
		list := wire.Tokens{}
		for slot, label := range []string{"crashes", "refuses", "works"} {
			list.Tokens = append(list.Tokens, wire.Token{Slot: uint(slot), Label: []byte(label), Serial: []byte(label), Initialized: true})
		}
		*result.(*wire.Tokens) = list
	case wire.MethodPublicKeys:
		switch call.Params.(wire.KeyParams).Slot {
		case 0:
			return nil, helper.ErrCrashed
		case 1:
			return nil, &helper.Error{Code: wire.CodePINLocked, Message: "searching objects: CKR_PIN_LOCKED"}
		}
		*result.(*[]wire.PublicKey) = []wire.PublicKey{{ID: []byte{1}, Type: wire.RSA, Modulus: d.key, Exponent: []byte{1, 0, 1}}}
	}
	return nil, nil
}

func (*desk) Close() error { return nil }

// TestOneBrokenTokenDoesNotEmptyTheList, nor is it called locked by a module that has
// an odd word for its trouble.
func TestOneBrokenTokenDoesNotEmptyTheList(t *testing.T) {
	t.Parallel()
	key := newRSA(t, 2048).N.Bytes()
	h := &Handler{Connect: func(context.Context) (helper.Conn, error) { return &desk{key}, nil }}
	table, err := h.Devices(t.Context())
	if err != nil || len(table.Rows) != 3 {
		t.Fatalf("%v, %v", table, err)
	}
	for i, want := range []string{"cannot be read: helper program ended unexpectedly", "cannot be read: searching objects: CKR_PIN_LOCKED", "RSA-2048"} {
		if got := table.Rows[i][3]; got != want {
			t.Errorf("row %q, want %q", table.Rows[i], want)
		}
	}
	h.TokenURI = "pkcs11:serial=refuses"
	if _, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 262}, tokentest.NewUI(t)); errors.Is(err, tokens.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
}

// TestCardThatDoesNotShowTheKeyGetsNoPINByItself: anybody can write a URI into the
// header that fits another card. A person may know better.
func TestCardThatDoesNotShowTheKeyGetsNoPINByItself(t *testing.T) {
	t.Parallel()
	connect := connect(t, fixtureStore(t).Env...)
	for _, c := range []struct {
		name, uri, admin string
		person           bool
	}{
		{"shows it", "pkcs11:token=luksmith;id=%01", "", false},
		{"shows others", "pkcs11:token=luksmith;id=%77", "", true},
		{"names no key", "pkcs11:token=luksmith", "", false},
		{"named by the administrator", "pkcs11:token=luksmith;id=%77", "pkcs11:token=luksmith", false},
	} {
		ui := tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrNoPrompt})
		_, err := (&Handler{Connect: connect, UnlockURI: c.admin}).Unlock(t.Context(),
			&tokens.UnlockRequest{Tokens: []luks2.Token{token(0, withURI(t, "systemd257-rsa", c.uri))}}, ui)
		if list := ui.Prompts(); len(list) != 1 || list[0].Person != c.person {
			t.Errorf("%s: asked %+v, want a person: %t", c.name, list, c.person)
		}
		if !errors.Is(err, tokens.ErrNoPrompt) || strings.Contains(err.Error(), "shows other keys") != c.person {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
