package combo

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/argon2id"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

func handler(of ...string) *Handler {
	h := New(tokens.Set{&tokentest.Toy{Device: "present"}})
	h.AllOf = of
	return h
}

// cheap makes stretching cost nothing until the end of the test.
func cheap(t *testing.T) {
	before := newStretch
	newStretch = argon2id.Params{MemoryKiB: 64, Time: 1, Lanes: 1}
	t.Cleanup(func() { newStretch = before })
}

const vector = `{"type":"luksmith-combo","keyslots":["1"],"combo-need":2,"combo-of":2,"combo-salt":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","combo-factors":[` +
	`{"factor":"toy","id":"oKGio6SlpqeoqaqrrK2urw==","token":{"type":"test-toy","keyslots":[],"toy-blob":"b","toy-mask":"AQIDBAUGBwg="}},` +
	`{"factor":"passphrase","id":"sLGys7S1tre4ubq7vL2+vw==","salt":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","memory":64,"time":1,"lanes":1}],"luksmith":{"label":"both"}}`

func TestConformance(t *testing.T) {
	cheap(t)
	replace := func(old, new string) string { return strings.Replace(vector, old, new, 1) }
	tokentest.Run(t, tokentest.Subject{
		New:           func(*testing.T) tokens.Handler { return handler("toy", "passphrase") },
		EnrollAnswers: []string{"01234567", "correct horse"},
		UnlockAnswers: []string{"01234567", "correct horse"},
		Valid:         []tokentest.Fixture{{Name: "both", Token: vector}},
		Malformed: []tokentest.Malformed{
			{Name: "no salt", Token: replace(`"combo-salt"`, `"combo-sal"`), Field: "combo-salt"},
			{Name: "short salt", Token: replace(`"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="`, `"AAEC"`), Field: "combo-salt"},
			{Name: "one factor of two", Token: replace(`"combo-need":2`, `"combo-need":1`), Field: "combo-need"},
			{Name: "two of one", Token: replace(`"combo-of":2`, `"combo-of":1`), Field: "combo-of"},
			{Name: "no factors", Token: replace(`"combo-factors":[`, `"combo-factors":[],"x":[`), Field: "combo-factors"},
			{Name: "memory without end", Token: replace(`"memory":64`, `"memory":99999999`), Field: "combo-factors"},
			{Name: "time without end", Token: replace(`"time":1`, `"time":99999999`), Field: "combo-factors"},
			{Name: "no token", Token: replace(`"token"`, `"tok"`), Field: "combo-factors"},
			{Name: "factor's token malformed", Token: replace(`"toy-mask"`, `"toy-mas"`), Field: "combo-factors"},
			{Name: "short identity", Token: replace(`"oKGio6SlpqeoqaqrrK2urw=="`, `"oKGi"`), Field: "combo-factors"},
		},
		Sealed: []string{"combo-salt"},
	})
}

// TestVector is the one of docs/formats.md.
func TestVector(t *testing.T) {
	tok, err := readToken(json.RawMessage(vector))
	if err != nil {
		t.Fatal(err)
	}
	key, err := tok.passphrase([]secret.Secret{secret.Copy([]byte("first secret")), secret.Copy([]byte("second"))})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	const want = "f0bfe138264d3c640d5e1b27c300e72cdb8ffda4bb398ee609c25f0d8fe6dd72"
	if raw, _ := base64.StdEncoding.DecodeString(string(key.Bytes())); hex.EncodeToString(raw) != want {
		t.Errorf("key %x, want %s", raw, want)
	}
	typed := secret.Copy([]byte("pw"))
	defer typed.Wipe()
	s, err := tok.factors[1].stretched(t.Context(), typed)
	if err != nil || s.Len() != keySize {
		t.Fatalf("%d bytes, %v", s.Len(), err)
	}
	s.Wipe()
}

// TestEverySecretMovesTheKey also with bytes pushed from one secret to the next.
func TestEverySecretMovesTheKey(t *testing.T) {
	tok, err := readToken(json.RawMessage(vector))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, pair := range [][2]string{{"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"", "abc"}, {"c", "ab"}, {"ab", "d"}, {"ac", "c"}} {
		a, b := secret.Copy([]byte(pair[0])), secret.Copy([]byte(pair[1]))
		key, err := tok.passphrase([]secret.Secret{a, b})
		if err != nil {
			t.Fatal(err)
		}
		text := string(key.Bytes())
		if other, ok := seen[text]; ok {
			t.Errorf("%q and %s give one key", pair, other)
		}
		seen[text] = fmt.Sprintf("%q", pair)
		secret.WipeAll([]secret.Secret{a, b, key})
	}
}

func enroll(t *testing.T, h *Handler, answers ...string) []luks2.Token {
	t.Helper()
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Volume: tokens.Volume{Device: "/dev/x"}, Compat: 262}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if err != nil {
		t.Fatal(err)
	}
	var list []luks2.Token
	for i, one := range append([]*tokens.Enrollment{e}, e.More...) {
		list = append(list, luks2.Token{ID: i, Type: Type, Keyslots: []int{i}, Raw: one.Token})
		key := one.Passphrase.Clone()
		opens[i] = key
		t.Cleanup(key.Wipe)
		one.Passphrase.Wipe()
	}
	return list
}

// opens are the passphrases of the keyslots that the last enrolment made.
var opens = map[int]secret.Secret{}

func request(list ...luks2.Token) *tokens.UnlockRequest {
	return &tokens.UnlockRequest{Volume: tokens.Volume{Device: "/dev/x"}, Tokens: list,
		Opens: func(_ context.Context, t luks2.Token, passphrase secret.Secret) error {
			if !passphrase.Equal(opens[t.ID]) {
				return tokens.ErrWrongKey
			}
			return nil
		}}
}

const cancelled = "^D"

// TestAnyMissingOrWrongFactorFails: and the passphrase is not asked for when a
// device is missing.
func TestAnyMissingOrWrongFactorFails(t *testing.T) {
	cheap(t)
	h := handler("toy", "passphrase")
	list := enroll(t, h, "01234567", "correct horse")
	for name, c := range map[string]struct {
		device  string
		answers []string
		want    error
		asked   int
	}{
		"both right":           {"present", []string{"01234567", "correct horse"}, nil, 2},
		"second try":           {"present", []string{"01234567", "wrong", "correct horse"}, nil, 3},
		"wrong passphrase":     {"present", []string{"01234567", "a", "b"}, tokens.ErrWrongKey, 3},
		"wrong PIN":            {"present", []string{"76543210", "correct horse", "correct horse"}, tokens.ErrWrongKey, 3},
		"cancelled":            {"present", []string{"01234567", "wrong", cancelled}, tokens.ErrCancelled, 3},
		"device is not there":  {"absent", nil, tokens.ErrNoDevice, 0},
		"passphrase of others": {"present", []string{"01234567", "", ""}, tokens.ErrWrongKey, 3},
	} {
		t.Run(name, func(t *testing.T) {
			h := New(tokens.Set{&tokentest.Toy{Device: c.device}})
			script := tokentest.Typed(c.answers...)
			for i := range script {
				if script[i].Text == cancelled {
					script[i].Err = tokens.ErrCancelled
				}
			}
			ui := tokentest.NewUI(t, script...)
			got, err := tokens.UnlockWithRetries(t.Context(), h, request(list...), ui)
			if h.interrupted != nil {
				t.Error("secrets are kept")
			}
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || len(ui.Prompts()) != c.asked {
				t.Errorf("%v, asked %d times", err, len(ui.Prompts()))
			}
			if got != nil {
				got.Passphrase.Wipe()
			}
		})
	}
}

// TestAnyTwoOfThree: three keyslots, each opened by the two factors that it names,
// and a factor that two of them share is asked for once.
func TestAnyTwoOfThree(t *testing.T) {
	cheap(t)
	h := New(tokens.Set{&tokentest.Toy{Device: "present"}})
	for _, set := range []struct{ option, value string }{{"any", "2"}, {"of", "toy,toy,passphrase"}} {
		for _, o := range h.Options() {
			if o.Name == set.option {
				if err := o.Set(set.value); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if what, err := h.Plan(&tokens.EnrollRequest{}); err != nil || what != "any 2 of: toy with PIN; toy with PIN; passphrase" {
		t.Errorf("%q, %v", what, err)
	}
	list := enroll(t, h, "00000000", "11111111", "correct horse")
	if len(list) != 3 {
		t.Fatalf("%d keyslots", len(list))
	}
	ui := tokentest.NewUI(t, tokentest.Typed("00000000", "99999999", "correct horse")...)
	got, err := h.Unlock(t.Context(), request(list...), ui)
	if err != nil || got.Token.ID != 1 { // the first toy and the passphrase
		t.Fatalf("%+v, %v", got, err)
	}
	got.Passphrase.Wipe()
}

func TestSubsets(t *testing.T) {
	for _, c := range []struct {
		n, k int
		want string
	}{{2, 2, "[[0 1]]"}, {3, 2, "[[0 1] [0 2] [1 2]]"}, {4, 3, "[[0 1 2] [0 1 3] [0 2 3] [1 2 3]]"}, {3, 0, "[[]]"}} {
		if got := fmt.Sprint(subsets(c.n, c.k)); got != c.want {
			t.Errorf("%d of %d: %s, want %s", c.k, c.n, got, c.want)
		}
	}
}

func TestOptionsThatMakeNoCombination(t *testing.T) {
	for _, c := range [][]string{{"all-of=toy"}, {"all-of=toy,nosuch"}, {"all-of=passphrase,passphrase"}, {"any=1"}, {"any=x"},
		{"all-of=toy,passphrase", "of=toy,passphrase"}, {"all-of=toy,toy,toy,toy,toy,toy,toy"}, {"all-of="}, {"luksmith-combo=always"}} {
		h := New(tokens.Set{&tokentest.Toy{}})
		var err error
		for _, word := range c {
			name, value, _ := strings.Cut(word, "=")
			for _, o := range h.Options() {
				if o.Name == name {
					err = errors.Join(err, o.Set(value))
				}
			}
		}
		if err == nil {
			t.Errorf("%q is taken", c)
		}
	}
	for _, h := range []*Handler{{}, {Of: []string{"toy", "passphrase"}}, {AllOf: []string{"toy", "passphrase"}, Need: 2},
		{Of: []string{"toy", "passphrase"}, Need: 3}} {
		h.Types = tokens.Set{&tokentest.Toy{}}
		if _, err := h.Plan(&tokens.EnrollRequest{}); !errors.Is(err, tokens.ErrUsage) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// TestUnknownFactorIsNotTried: a later version may know more factors than this one.
func TestUnknownFactorIsNotTried(t *testing.T) {
	h := New(nil)
	tok := luks2.Token{ID: 3, Type: Type, Raw: json.RawMessage(vector)}
	d, err := h.Describe(tok)
	if err != nil || !strings.Contains(d.Unusable, `unknown factor "toy"`) {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := h.Unlock(t.Context(), request(tok), tokentest.NewUI(t)); !errors.Is(err, tokens.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// TestDoubtIsThatOfTheFactor: a wipe that is refused says which device was not asked.
func TestDoubtIsThatOfTheFactor(t *testing.T) {
	factors := []made{{factor: factor{name: "passphrase"}}, {factor: factor{name: "toy"}, result: &tokens.Enrollment{Proven: true}},
		{factor: factor{name: "card"}, result: &tokens.Enrollment{Doubt: "its device was not asked"}}}
	if got := doubt(factors); got != "card: its device was not asked" || doubt(factors[:2]) != "" {
		t.Errorf("%q", got)
	}
}

func FuzzReadToken(f *testing.F) {
	f.Add([]byte(vector))
	h := New(tokens.Set{&tokentest.Toy{}})
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := readToken(raw)
		if err != nil {
			return
		}
		if len(tok.factors) < 2 || len(tok.factors) > maxFactors || slices.ContainsFunc(tok.factors, func(f factor) bool { return len(f.identity) != identitySize }) {
			t.Errorf("%+v", tok)
		}
		_, _ = h.Describe(luks2.Token{Type: Type, Raw: raw})
	})
}

// TestPassphraseThatNeedsMoreMemoryThanThereIsIsNotAskedFor: computing it would end the
// process, or the machine, before anybody is asked for another way in.
func TestPassphraseThatNeedsMoreMemoryThanThereIsIsNotAskedFor(t *testing.T) {
	f := factor{name: passphraseFactor, stretch: argon2id.Params{MemoryKiB: math.MaxInt, Time: 1, Lanes: 1}}
	g := &gathering{UI: tokentest.NewUI(t), req: request(), secrets: map[string]secret.Secret{}}
	if err := g.typed(t.Context(), &f); !errors.Is(err, tokens.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// TestPassphrasesOfOneCallAreBounded: a header may hold a combination for every keyslot,
// each with a passphrase of its own, which takes minutes to stretch.
func TestPassphrasesOfOneCallAreBounded(t *testing.T) {
	var list []luks2.Token
	for i := range 20 {
		id := base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("passphrase %05d", i)))
		list = append(list, luks2.Token{ID: i, Type: Type, Keyslots: []int{i}, Raw: json.RawMessage(strings.Replace(vector, "sLGys7S1tre4ubq7vL2+vw==", id, 1))})
	}
	ui := tokentest.NewUI(t, tokentest.Typed("01234567", "a", "b", "c")...)
	if _, err := tokens.UnlockWithRetries(t.Context(), handler(), request(list...), ui); !errors.Is(err, tokens.ErrWrongPIN) {
		t.Errorf("got %v", err)
	}
	if n := len(ui.Prompts()); n != 1+maxAnswers {
		t.Errorf("asked %d times", n)
	}
}
