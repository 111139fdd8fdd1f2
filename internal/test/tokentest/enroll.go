package tokentest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"luksmith/luks2"
	"luksmith/tokens"
)

// maxExtra is how much of the 12 KiB of JSON our member may take: formats.md.
const maxExtra = 1024

// request is an enrolment on a volume without tokens.
func request() *tokens.EnrollRequest {
	return &tokens.EnrollRequest{
		Volume: tokens.Volume{UUID: "3f1c1d5e-6f0c-4b5e-9d0e-0c4e0a2f9d11", Device: "/dev/disk/by-label/data", Label: "data"},
		Compat: 262,
	}
}

func (s Subject) plan(t *testing.T) {
	factories := []func(*testing.T) tokens.Handler{s.New}
	if s.Absent != nil {
		factories = append(factories, s.Absent)
	}
	for _, factory := range factories {
		for compat := 248; compat <= 262; compat++ {
			req := request()
			req.Compat = compat
			text, err := factory(t).(tokens.Enroller).Plan(req)
			switch {
			case err != nil && !errors.Is(err, tokens.ErrUsage):
				t.Errorf("compat %d: %v, want a line or ErrUsage: Plan touches no device", compat, err)
			case err != nil && !plain(err.Error()), err == nil && !line(text):
				t.Errorf("compat %d: plan %q, %q: want one plain line", compat, text, err)
			}
		}
	}
}

func (s Subject) enroll(t *testing.T) {
	t.Run("result", func(t *testing.T) {
		ui := NewUI(t, Typed(s.EnrollAnswers...)...)
		req := request()
		e, err := s.New(t).(tokens.Enroller).Enroll(t.Context(), req, ui)
		s.checkEnrollment(t, e, err)
	})
	t.Run("label", func(t *testing.T) {
		ui := NewUI(t, Typed(s.EnrollAnswers...)...)
		req := request()
		req.Label = `Büro "3" \ <a&b>`
		e, err := s.New(t).(tokens.Enroller).Enroll(t.Context(), req, ui)
		s.checkEnrollment(t, e, err)
		if d := s.mustDescribe(t, s.token(t, 0, string(e.Token))); d.Label != req.Label || e.Label != req.Label {
			t.Errorf("label %q comes back as %q, in the result %q", req.Label, d.Label, e.Label)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s.cancellations(t, s.EnrollAnswers, func(ctx context.Context, ui *UI) error {
			e, err := s.New(t).(tokens.Enroller).Enroll(ctx, request(), ui)
			if err == nil {
				e.Passphrase.Wipe()
			}
			return err
		})
	})
	if s.Absent != nil {
		t.Run("no device", func(t *testing.T) {
			e, err := s.Absent(t).(tokens.Enroller).Enroll(t.Context(), request(), NewUI(t))
			if !errors.Is(err, tokens.ErrNoDevice) || e != nil {
				t.Errorf("%v, %v, want ErrNoDevice", e, err)
			}
		})
	}
	if _, ok := s.New(t).(tokens.MultiEnroller); ok {
		t.Run("several", s.enrollAll)
	}
}

func (s Subject) enrollAll(t *testing.T) {
	a, b := request(), request()
	b.Volume.UUID, b.Volume.Device = "1b0e5a0c-1d3b-4f5f-8a51-7d7c5e1a2b3c", "/dev/sdb2"
	list, err := s.New(t).(tokens.MultiEnroller).EnrollAll(t.Context(), []*tokens.EnrollRequest{a, b}, NewUI(t, Typed(s.EnrollAnswers...)...))
	if err != nil || len(list) != 2 {
		t.Fatalf("%d results for two requests, %v", len(list), err)
	}
	for _, e := range list {
		s.checkEnrollment(t, e, nil)
	}
	if list[0].Passphrase.Equal(list[1].Passphrase) {
		t.Error("two volumes got the same passphrase")
	}
}

// checkEnrollment checks what the command is going to write, and has the
// passphrase wiped at the end of the test.
func (s Subject) checkEnrollment(t *testing.T, e *tokens.Enrollment, err error) {
	t.Helper()
	if err != nil || e == nil {
		t.Fatalf("Enroll: %v, %v", e, err)
	}
	t.Cleanup(e.Passphrase.Wipe)
	if e.Passphrase.Len() < 16 {
		t.Errorf("the passphrase has %d bytes", e.Passphrase.Len())
	}
	k, minimal := e.KDF, luks2.MinimalKDF
	if k.Type != minimal.Type || k.Hash != minimal.Hash || k.Iterations != minimal.Iterations || k.Time != 0 || k.MemoryKiB != 0 {
		t.Errorf("KDF is %+v, want the minimal one", k)
	}
	if e.Unchanged != nil {
		t.Errorf("token %d is unchanged on a volume without tokens", e.Unchanged.ID)
	}
	if len(e.Replaces) > 0 {
		t.Errorf("replaces the tokens %v of a volume without tokens", e.Replaces)
	}
	for _, text := range slices.Concat(e.Crypttab, e.Notes) {
		if !line(text) {
			t.Errorf("crypttab option or note %q is not one plain line", text)
		}
	}
	for _, word := range e.Crypttab {
		if strings.ContainsAny(word, " ,#") {
			t.Errorf("crypttab option %q would not stand in one field", word)
		}
	}
	s.checkToken(t, e)
}

func (s Subject) checkToken(t *testing.T, e *tokens.Enrollment) {
	t.Helper()
	members, err := tokens.Members(e.Token)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	if got, want := string(members["type"]), asJSON(s.New(t).Type()); got != want {
		t.Errorf("token has type %s, want %s", got, want)
	}
	if got := string(members["keyslots"]); got != "[]" {
		t.Errorf(`token has "keyslots":%s, want []`, got)
	}
	if n := len(members[tokens.ExtraMember]); n > maxExtra {
		t.Errorf("member %q has %d bytes, want at most %d", tokens.ExtraMember, n, maxExtra)
	}
	if strings.Contains(string(e.Token), string(e.Passphrase.Bytes())) {
		t.Error("the token holds the passphrase")
	}
	d := s.mustDescribe(t, s.token(t, 0, string(e.Token)))
	s.checkDetail(t, json.RawMessage(e.Token), d)
	if d.Unusable != "" {
		t.Errorf("the new token is unusable: %s", d.Unusable)
	}
	if !slices.Equal(d.Requires, e.Requires) {
		t.Errorf("Requires: the enrolment says %q, Describe %q", e.Requires, d.Requires)
	}
}
