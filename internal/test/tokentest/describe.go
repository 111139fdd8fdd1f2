package tokentest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/luks2"
	"luksmith/tokens"
)

func (s Subject) describe(t *testing.T) {
	for _, f := range s.Valid {
		t.Run(f.Name, func(t *testing.T) {
			tok := s.token(t, 0, f.Token)
			before := bytes.Clone(tok.Raw)
			d := s.mustDescribe(t, tok)
			if !bytes.Equal(before, tok.Raw) {
				t.Error("Describe changed the token")
			}
			s.checkDetail(t, tok.Raw, d)
			s.describeExtras(t, f.Token, d)
			s.describeAtOnce(t, tok, d)
		})
	}
}

// mustDescribe describes a valid token and checks the general rules.
func (s Subject) mustDescribe(t *testing.T, tok luks2.Token) tokens.Description {
	t.Helper()
	d, err := s.New(t).Describe(tok)
	if err != nil {
		t.Fatalf("Describe refuses a valid token: %v", err)
	}
	s.checkDescription(t, d)
	return d
}

func (s Subject) checkDescription(t *testing.T, d tokens.Description) {
	t.Helper()
	for _, r := range d.Requires {
		if !line(r) {
			t.Errorf("Requires has %q", r)
		}
	}
	if !plain(d.Unusable) {
		t.Errorf("Unusable is %q", d.Unusable)
	}
	if d.Cost < 0 {
		t.Errorf("Cost is %d", d.Cost)
	}
	if _, err := json.Marshal(d.Detail); err != nil {
		t.Errorf("Detail cannot be encoded: %v", err)
	}
}

// checkDetail looks for sealed members in the JSON form.
func (s Subject) checkDetail(t *testing.T, raw json.RawMessage, d tokens.Description) {
	detail, _ := json.Marshal(d.Detail)
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.Sealed {
		for _, text := range texts(members[name]) {
			for _, form := range forms(text) {
				if strings.Contains(strings.ToLower(string(detail)), strings.ToLower(form)) {
					t.Errorf("Detail shows the member %q", name)
				}
			}
		}
	}
}

// texts are the strings in a member that is a string or an array of strings.
func texts(member json.RawMessage) []string {
	var one string
	if json.Unmarshal(member, &one) == nil && one != "" {
		return []string{one}
	}
	var many []string
	_ = json.Unmarshal(member, &many)
	return many
}

// forms are the ways in which a base64 text could be shown.
func forms(text string) []string {
	list := []string{text}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil && len(b) > 0 {
		list = append(list, hex.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b))
	}
	return list
}

// describeExtras adds members that must not matter.
func (s Subject) describeExtras(t *testing.T, token string, want tokens.Description) {
	for name, member := range map[string]string{
		"extra of the wrong type":  `"luksmith":5`,
		"extra with a wrong label": `"luksmith":{"label":["x"],"created":7}`,
		"null extra":               `"luksmith":null`,
		"other case of the extra":  `"LUKSMITH":{"label":"wrong"}`,
	} {
		d, err := s.New(t).Describe(s.token(t, 0, with(token, member)))
		if err != nil {
			t.Errorf("%s: %v, although nothing in it is needed", name, err)
		} else if d.Label != "" && d.Label != want.Label {
			t.Errorf("%s: label %q", name, d.Label)
		}
	}
	quoted, _ := json.Marshal(evil)
	d := s.mustDescribe(t, s.token(t, 0, with(token, fmt.Sprintf(`"luksmith":{"label":%s}`, quoted))))
	if d.Label != evil {
		t.Errorf("label is %q, want it as it stands in the token: the command escapes it", d.Label)
	}
	// The dash and the underscore make names that look like systemd's.
	for _, prefix := range []string{"", s.New(t).Name() + "-", s.New(t).Name() + "_"} {
		unknown, _ := json.Marshal(prefix + evil)
		if d, err := s.New(t).Describe(s.token(t, 0, with(token, string(unknown)+`:1`))); err == nil {
			s.checkDescription(t, d)
		} else if !plain(err.Error()) {
			t.Errorf("error is not escaped: %q", err)
		}
	}
	s.describeOtherCase(t, token, want)
}

// describeOtherCase adds every member once more in upper case: encoding/json
// would take that for the member itself.
func (s Subject) describeOtherCase(t *testing.T, token string, want tokens.Description) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(token), &members); err != nil {
		t.Fatal(err)
	}
	for name := range members {
		d, err := s.New(t).Describe(s.token(t, 0, with(token, fmt.Sprintf(`%q:[{}]`, strings.ToUpper(name)))))
		if err != nil {
			t.Errorf("the unknown member %q is taken for %q: %v", strings.ToUpper(name), name, err)
		} else if got := d; cmp.Diff(got.Requires, want.Requires) != "" || cmp.Diff(asJSON(got.Detail), asJSON(want.Detail)) != "" {
			t.Errorf("the unknown member %q changes the description", strings.ToUpper(name))
		}
	}
}

// describeAtOnce is for the race detector: Describe may run concurrently.
func (s Subject) describeAtOnce(t *testing.T, tok luks2.Token, want tokens.Description) {
	h := s.New(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if d, err := h.Describe(tok); err != nil || asJSON(d.Detail) != asJSON(want.Detail) {
				t.Errorf("Describe in several goroutines: %v", err)
			}
		})
	}
	wg.Wait()
}

func (s Subject) malformed(t *testing.T) {
	for _, m := range s.Malformed {
		t.Run(m.Name, func(t *testing.T) {
			_, err := s.New(t).Describe(s.token(t, 0, m.Token))
			if !errors.Is(err, tokens.ErrMalformed) {
				t.Fatalf("%v, want ErrMalformed", err)
			}
			field, ok := errors.AsType[*tokens.FieldError](err)
			if !ok || field.Field != m.Field {
				t.Errorf("%v, want a FieldError for %q", err, m.Field)
			}
			if !plain(err.Error()) {
				t.Errorf("the error is not escaped: %q", err)
			}
		})
	}
	for _, text := range []string{``, `null`, `[]`, `"x"`, `{`, `{"type":`, `{}{}`, "\xff\x00"} {
		if _, err := s.New(t).Describe(s.token(t, 0, text)); !errors.Is(err, tokens.ErrMalformed) {
			t.Errorf("token %q: %v, want ErrMalformed", text, err)
		}
	}
}

// with adds a member, given as `"name":value`, to the end of an object.
func with(object, member string) string {
	body := strings.TrimRight(strings.TrimSuffix(strings.TrimSpace(object), "}"), " \n\t")
	if strings.HasSuffix(body, "{") {
		return body + member + "}"
	}
	return body + "," + member + "}"
}

func asJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
