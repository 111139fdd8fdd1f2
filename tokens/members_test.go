package tokens

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestMembersAreMatchedByExactName(t *testing.T) {
	m, err := Members(json.RawMessage(`{"tpm2-blob":"AAE=","TPM2-BLOB":5,"n":1,"n":2}`))
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	var n int
	if ok, err := Member(m, "tpm2-blob", &blob); !ok || err != nil || string(blob) != "\x00\x01" {
		t.Errorf("blob is %x, %v, %v", blob, ok, err)
	}
	if _, err := Member(m, "n", &n); err != nil || n != 2 {
		t.Errorf("of two members of one name %d counts, %v", n, err)
	}
	if ok, err := Member(m, "Tpm2-Blob", &blob); ok || err != nil {
		t.Errorf("a third spelling: %v, %v", ok, err)
	}
}

func TestMembersRefuses(t *testing.T) {
	for _, text := range []string{``, `null`, `[]`, `1`, `"x"`, `{`, `{}{}`, "\xff"} {
		if m, err := Members(json.RawMessage(text)); !errors.Is(err, ErrMalformed) || m != nil {
			t.Errorf("%q: %v, %v, want ErrMalformed", text, m, err)
		}
	}
}

func TestMemberSaysWhatIsWrong(t *testing.T) {
	m, err := Members(json.RawMessage(`{"null":null,"string":"x","number":1.5,"list":[1,"x"],"big":1e999,"base64":"A=\u001b"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		v    any
		want string
	}{
		{"null", new(string), "is null"},
		{"string", new(int), "is a string where int is expected"},
		{"string", new(bool), "is a string where bool is expected"},
		{"number", new(int), "is a number 1.5 where int is expected"},
		{"list", new([]int), "is a string where int is expected"},
		{"big", new(float64), "is a number 1e999 where float64 is expected"},
		{"base64", new([]byte), "illegal base64 data at input byte 1"},
		{"none", new(string), "is missing"},
	} {
		err := NeedMember(m, c.name, c.v)
		field, ok := errors.AsType[*FieldError](err)
		if !ok || field.Field != c.name || !strings.HasPrefix(field.Reason, c.want) {
			t.Errorf("%s into %T: %v, want %s", c.name, c.v, err, c.want)
		}
	}
	if ok, err := Member(m, "none", new(string)); ok || err != nil {
		t.Errorf("a missing member: %v, %v", ok, err)
	}
}
