package tokens

import (
	"context"
	"errors"
	"testing"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

type stub struct{ Handler }

func (stub) Type() string { return "systemd-stub" }
func (stub) Name() string { return "stub" }

func TestSetFindsHandlers(t *testing.T) {
	h := stub{}
	s := Set{h}
	if s.ByType("systemd-stub") != h || s.ByName("stub") != h {
		t.Error("a handler of the set is not found")
	}
	if s.ByType("stub") != nil || s.ByName("systemd-stub") != nil || (Set)(nil).ByType("") != nil {
		t.Error("a handler is found that is not there")
	}
}

func TestSetters(t *testing.T) {
	var on, b bool
	var text string
	for _, c := range []struct {
		set   func(string) error
		value string
		ok    bool
	}{
		{SetSwitch(&on), "", true}, {SetSwitch(&on), "yes", false},
		{SetBool(&b), "Yes", true}, {SetBool(&b), "", false}, {SetBool(&b), "2", false}, {SetBool(&b), "yes ", false},
		{SetText(&text), "/dev/tpmrm0", true}, {SetText(&text), "", false}, {SetText(&text), "a\x1b[0m", false}, {SetText(&text), "a\nb", false},
	} {
		if err := c.set(c.value); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.value, err)
		}
	}
	if !on || !b || text != "/dev/tpmrm0" {
		t.Errorf("stored: %v %v %q", on, b, text)
	}
	if err := SetBool(&b)("off"); err != nil || b {
		t.Errorf("off: %v, %v", b, err)
	}
}

func TestCheckWithoutOpensTakesEveryPassphrase(t *testing.T) {
	req := &UnlockRequest{}
	if err := req.Check(t.Context(), luks2.Token{}, secret.Secret{}); err != nil {
		t.Error(err)
	}
	req.Opens = func(context.Context, luks2.Token, secret.Secret) error { return ErrWrongKey }
	if err := req.Check(t.Context(), luks2.Token{}, secret.Secret{}); !errors.Is(err, ErrWrongKey) {
		t.Errorf("%v, want what Opens says", err)
	}
}
