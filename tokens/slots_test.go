package tokens

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
)

// toy is a token type for these tests: its "state" member says what Describe finds.
type toy struct{ name, tokenType string }

func (h toy) Type() string      { return h.tokenType }
func (h toy) Name() string      { return h.name }
func (h toy) Options() []Option { return nil }
func (h toy) Describe(t luks2.Token) (Description, error) {
	d := Description{Label: Label(t.Raw), Requires: []string{"PIN"}}
	m, err := Members(t.Raw)
	if err != nil {
		return d, err
	}
	var state string
	if _, err := Member(m, "state", &state); err != nil {
		return d, err
	}
	d.Unusable = state
	return d, nil
}

// device is a toy that is not typed.
type device struct{ toy }

func (device) Unlock(context.Context, *UnlockRequest, UI) (*Unlocked, error) { return nil, ErrNoDevice }

var toys = Set{device{toy{"tpm2", "systemd-tpm2"}}, toy{"recovery", "systemd-recovery"}}

func token(tokenType, members string) luks2.Token {
	return luks2.Token{Type: tokenType, Raw: json.RawMessage(`{"type":"` + tokenType + `","keyslots":[]` + members + `}`)}
}

func header(t *testing.T, v *luks2test.Volume) *luks2.Header {
	t.Helper()
	h, err := v.Device.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestSlotsKnowsKindAndState(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	for i, tok := range []luks2.Token{
		token("systemd-tpm2", `,"luksmith":{"label":"laptop"}`),
		token("systemd-tpm2", `,"state":"made by a newer systemd"`),
		token("systemd-tpm2", `,"state":7`),
		token("systemd-recovery", ""),
		token("clevis", ""),
	} {
		if slot := v.Enroll(t, "passphrase of "+tok.Type, tok); slot != i+1 {
			t.Fatalf("slot %d, want %d", slot, i+1)
		}
	}
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { // a second token on slot 4: a conflict
		extra := token("clevis", "")
		extra.Keyslots = []int{4}
		_, err := tx.AddToken(extra)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slots := Slots(toys, header(t, v))
	for i, want := range []struct {
		kind, label, problem string
		person               bool
	}{
		{KindPassword, "", "", true},
		{"tpm2", "laptop", "", false},
		{"tpm2", "", "made by a newer systemd", false},
		{"tpm2", "", `member "state"`, true}, // who knows what is behind it
		{KindConflict, "", "several tokens", true},
		{KindOther, "", "", true},
	} {
		s := slots[i]
		if s.ID != i || s.Kind != want.kind || s.Label != want.label || !strings.HasPrefix(s.Problem, want.problem) ||
			s.Usable() != (want.problem == "") || s.ByPerson() != want.person {
			t.Errorf("slot %d: %q, label %q, problem %q, by person %t; want %+v", i, s.Kind, s.Label, s.Problem, s.ByPerson(), want)
		}
	}
}

func TestTokenOfSystemdOnTwoSlotsLeavesThemPasswords(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "second", luks2.Token{})
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		tok := token("systemd-tpm2", "")
		tok.Keyslots = []int{0, 1}
		_, err := tx.AddToken(tok)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Slots(toys, header(t, v)) {
		if s.Kind != KindPassword || !s.ByPerson() {
			t.Errorf("slot %d is %q", s.ID, s.Kind)
		}
	}
}

func TestOrphansAreKnownTokensWithoutKeyslot(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithToken(token("systemd-tpm2", "")), luks2test.WithToken(token("clevis", "")))
	if got := Orphans(toys, header(t, v)); len(got) != 1 || got[0].Type != "systemd-tpm2" {
		t.Errorf("got %v", got)
	}
}

func setLabel(t *testing.T, v *luks2test.Volume, slot int, label string) {
	t.Helper()
	if err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { return SetLabel(tx, toys, slot, label) }); err != nil {
		t.Fatalf("labelling slot %d %q: %v", slot, label, err)
	}
}

func labels(t *testing.T, v *luks2test.Volume) string {
	t.Helper()
	var all []string
	for _, s := range Slots(toys, header(t, v)) {
		all = append(all, s.Label)
	}
	return strings.Join(all, "|")
}

func TestSetLabel(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "a", token("systemd-tpm2", `,"x" : 1.50,"luksmith":{"created":"now"}`))
	v.Enroll(t, "b", token("systemd-recovery", ""))
	v.Enroll(t, "c", luks2.Token{})
	for slot, name := range []string{"boss", "laptop", "paper \"1\"", "spare"} {
		setLabel(t, v, slot, name)
	}
	if got := labels(t, v); got != `boss|laptop|paper "1"|spare` {
		t.Errorf("labels %s", got)
	}
	h := header(t, v)
	if raw := string(h.Tokens[0].Raw); !strings.Contains(raw, `"x" : 1.50`) || !strings.Contains(raw, `"created":"now"`) {
		t.Errorf("labelling changed other members: %s", raw)
	}
	if n := len(h.Tokens); n != 3 {
		t.Errorf("%d tokens, want the two and one for labels", n)
	}
	for slot := range 4 {
		setLabel(t, v, slot, "")
	}
	if got := labels(t, v); got != "|||" {
		t.Errorf("after removal: %s", got)
	}
	if n := len(header(t, v).Tokens); n != 2 {
		t.Errorf("%d tokens after the last label went", n)
	}
}

func TestReusedSlotNumberInheritsNoLabel(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "a", luks2.Token{})
	setLabel(t, v, 1, "old owner")
	if err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { return tx.RemoveKeyslot(1) }); err != nil {
		t.Fatal(err)
	}
	v.Enroll(t, "b", luks2.Token{})
	if got := labels(t, v); got != "|" {
		t.Errorf("labels %s", got)
	}
	setLabel(t, v, 0, "first")
	if raw := string(header(t, v).Tokens[0].Raw); strings.Contains(raw, "old owner") {
		t.Errorf("the stale entry stays: %s", raw)
	}
}

// TestPlantedLabelIsCut: a header that somebody edited can have one of a megabyte.
func TestPlantedLabelIsCut(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "a", token("systemd-tpm2", `,"luksmith":{"label":"`+strings.Repeat("é", 2000)+`"}`))
	want := strings.Repeat("é", (MaxLabel-len("…"))/2) + "…"
	if got := labels(t, v); got != "|"+want {
		t.Errorf("labels %.100s", got)
	}
	if got := Label(header(t, v).Tokens[0].Raw); got != want {
		t.Errorf("label %.100s", got)
	}
}

func TestCheckLabel(t *testing.T) {
	t.Parallel()
	for label, ok := range map[string]bool{"a": true, "Büro 2": true, "": false, "a\x1b[2J": false, "a\u0085": false,
		"\xff": false, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false} {
		if err := CheckLabel(label); (err == nil) != ok {
			t.Errorf("%q: %v", label, err)
		}
	}
}
