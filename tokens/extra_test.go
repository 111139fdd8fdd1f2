package tokens

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestExtraRoundTrip(t *testing.T) {
	type ours struct {
		Extra
		AAGUID string `json:"aaguid,omitempty"`
	}
	in := ours{NewExtra("büro \x1b", "YubiKey 5C"), "2fc0579f"}
	if at, err := time.Parse(time.RFC3339, in.Created); err != nil || time.Since(at).Abs() > time.Minute || at.Location() != time.UTC {
		t.Errorf("created %q is not now in UTC: %v", in.Created, err)
	}
	token, err := json.Marshal(map[string]any{"type": "x", "keyslots": []string{}, ExtraMember: in})
	if err != nil {
		t.Fatal(err)
	}
	var out ours
	if err := ReadExtra(token, &out); err != nil || out != in {
		t.Errorf("%+v comes back as %+v, %v", in, out, err)
	}
	if got := Label(token); LabelText(got) != in.Label {
		t.Errorf("label %q", got)
	}
}

func TestExtraFromStrangers(t *testing.T) {
	for _, c := range []struct {
		token, label string
		malformed    bool
	}{
		{`{"type":"x"}`, "", false},
		{`{"luksmith":{"label":"a"}}`, "a", false},
		{`{"LUKSMITH":{"label":"a"}}`, "", false},
		{`{"luksmith":{"label":"a"},"Luksmith":{"label":"b"}}`, "a", false},
		{`{"luksmith":{"future":[1]}}`, "", false},
		{`{"luksmith":null}`, "", true},
		{`{"luksmith":"a"}`, "", true},
		{`{"luksmith":{"label":1}}`, "", true},
		{`{`, "", true},
		{``, "", true},
	} {
		var e Extra
		if err := ReadExtra(json.RawMessage(c.token), &e); errors.Is(err, ErrMalformed) != c.malformed || (err != nil) != c.malformed {
			t.Errorf("%s: %v, malformed is %v", c.token, err, c.malformed)
		}
		if got := Label(json.RawMessage(c.token)); got != c.label {
			t.Errorf("%s: label %q, want %q", c.token, got, c.label)
		}
	}
}
