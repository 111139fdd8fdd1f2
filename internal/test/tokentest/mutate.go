package tokentest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"luksmith/tokens"
)

// wrongValues are put in place of every member and array element.
var wrongValues = []string{`null`, `true`, `false`, `0`, `-1`, `1.5`, `24`, `256`, `4294967296`, `18446744073709551616`, `1e999`, `""`, `"x"`, `"="`,
	`"AA=="`, `"AAAA"`, `"00"`, `"\u001b[2J\u202e"`, `"\u0000"`, `"\ud800"`, `[]`, `[null]`, `[[]]`, `[0,0]`, `["",""]`, `["AA==","AA=="]`, `{}`, `{"a":null}`,
	strings.Repeat("[", 500) + strings.Repeat("]", 500), `"` + strings.Repeat("A", 1<<16) + `"`, `[` + strings.Repeat("7,", 9999) + `7]`}

// mutated feeds Describe with damaged forms of the valid tokens. Each is either
// described within the rules or refused with ErrMalformed.
func (s Subject) mutated(t *testing.T) {
	for _, f := range s.Valid {
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(f.Token), &members); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		for _, name := range slices.Sorted(maps.Keys(members)) {
			original := members[name]
			for _, value := range append(wrongElements(original), wrongValues...) {
				members[name] = json.RawMessage(value)
				s.tryDescribe(t, asJSON(members), name)
			}
			delete(members, name)
			s.tryDescribe(t, asJSON(members), name)
			members[name] = original
		}
		s.mutatedBytes(t, f.Token)
	}
}

// wrongElements replaces each element of an array member in turn.
func wrongElements(member json.RawMessage) []string {
	var elements []json.RawMessage
	if json.Unmarshal(member, &elements) != nil {
		return nil
	}
	var list []string
	for i := range min(len(elements), 4) {
		for _, value := range wrongValues {
			changed := slices.Clone(elements)
			changed[i] = json.RawMessage(value)
			list = append(list, asJSON(changed))
		}
	}
	return list
}

// mutatedBytes changes, inserts and removes bytes, the same ones in every run.
func (s Subject) mutatedBytes(t *testing.T, token string) {
	rng := rand.New(rand.NewPCG(1, 2))
	const alphabet = "\"{}[]:,\\0129-.eEaA=/+ \x00\x1b\xff"
	for range 1000 {
		b := []byte(token)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(b))
			switch c := alphabet[rng.IntN(len(alphabet))]; rng.IntN(3) {
			case 0:
				b[at] = c
			case 1:
				b = slices.Insert(b, at, c)
			default:
				b = slices.Delete(b, at, min(len(b)-1, at+1+rng.IntN(8)))
			}
		}
		s.tryDescribe(t, string(b), "")
	}
}

// tryDescribe describes a token that may be malformed. changed is the member that
// was touched, empty for a change that need not leave JSON behind.
func (s Subject) tryDescribe(t *testing.T, token, changed string) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("Describe panics on %.300q: %v", token, p)
		}
	}()
	d, err := s.New(t).Describe(s.token(t, 0, token))
	if err == nil {
		s.checkDescription(t, d)
		return
	}
	if err := checkMalformed(err, changed != ""); err != nil {
		t.Errorf("member %q changed to %.300q: %v", changed, token, err)
	}
}

// checkMalformed says what is wrong with an error of Describe.
func checkMalformed(err error, needField bool) error {
	field, ok := errors.AsType[*tokens.FieldError](err)
	switch {
	case !errors.Is(err, tokens.ErrMalformed):
		return fmt.Errorf("the error is not ErrMalformed: %w", err)
	case needField && (!ok || field.Field == ""):
		return fmt.Errorf("the error names no member: %w", err)
	case !plain(err.Error()):
		return fmt.Errorf("the error is not escaped: %q", err)
	case len(err.Error()) > 1000:
		return fmt.Errorf("the error has %d bytes", len(err.Error()))
	}
	return nil
}
