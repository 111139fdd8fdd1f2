package recovery

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"luksmith/luks2/secret"
)

const sample = "cukjrktc-nehcrhkg-gucbrgte-jerhrcui-gukftecf-dlinvdgr-vhljnelf-jjbdbfgd"

func typed(t testing.TB, text string) secret.Secret {
	s := secret.Copy([]byte(text))
	t.Cleanup(s.Wipe)
	return s
}

func TestParseForgives(t *testing.T) {
	groups := strings.Split(sample, "-")
	for name, text := range map[string]string{
		"as printed":          sample,
		"upper case":          strings.ToUpper(sample),
		"mixed case":          "CuKjRkTc" + sample[8:],
		"no dashes":           strings.Join(groups, ""),
		"spaces":              strings.Join(groups, " "),
		"newline at the end":  sample + "\r\n",
		"two lines":           strings.Join(groups[:4], "-") + "-\n" + strings.Join(groups[4:], "-") + "\n",
		"one dash missing":    strings.Replace(sample, "-", "", 1),
		"doubled dashes":      " --" + strings.Join(groups, " - ") + "-- ",
		"groups of four":      splitEvery(strings.Join(groups, ""), 4),
		"tab between letters": strings.Join(strings.Split(sample, ""), "\t"),
	} {
		key, err := Parse(typed(t, text))
		if err != nil || string(key.Bytes()) != sample {
			t.Errorf("%s: %q, %v", name, key.Bytes(), err)
		}
		key.Wipe()
	}
}

func splitEvery(text string, n int) string {
	var parts []string
	for ; len(text) > n; text = text[n:] {
		parts = append(parts, text[:n])
	}
	return strings.Join(append(parts, text), " ")
}

func TestParseNamesThePlace(t *testing.T) {
	bare := strings.ReplaceAll(sample, "-", "")
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "the text is empty"},
		{"only separators", " -\n", "the text is empty"},
		{"wrong letter", swap(sample, 12, 'a'), "letter 4 of group 2 is none of cbdefghijklnrtuv"},
		{"digit for a letter", swap(sample, 70, '1'), "letter 8 of group 8 is none of cbdefghijklnrtuv"},
		{"wrong letter without dashes", swap(bare, 16, 'x'), "letter 1 of group 3 is none of cbdefghijklnrtuv"},
		{"two wrong letters", swap(swap(sample, 70, 'a'), 0, 'z'), "letter 1 of group 1 is none of cbdefghijklnrtuv"},
		{"underscores", strings.ReplaceAll(sample, "-", "_"), "letter 1 of group 2 is none of cbdefghijklnrtuv"},
		{"Cyrillic", strings.Replace(sample, "c", "с", 1), "letter 1 of group 1 is none of cbdefghijklnrtuv"},
		{"full width", strings.Replace(sample, "u", "ｕ", 1), "letter 2 of group 1 is none of cbdefghijklnrtuv"},
		{"control character", sample[:30] + "\x1b" + sample[31:], "letter 4 of group 4 is none of cbdefghijklnrtuv"},
		{"letter missing in a group", sample[:20] + sample[21:], "group 3 has 7 letters, not 8"},
		{"letter doubled in a group", sample[:60] + "c" + sample[60:], "group 7 has 9 letters, not 8"},
		{"letter moved to the next group", sample[:7] + "-c" + sample[9:], "group 1 has 7 letters, not 8"},
		{"group missing", sample[:62], "there are 56 letters, a recovery key has 64"},
		{"group doubled", sample + "-" + sample[:8], "there are 72 letters, a recovery key has 64"},
		{"without dashes, one short", bare[1:], "there are 63 letters, a recovery key has 64"},
		{"wrong letter after the end", bare + "a", "there are more than the 64 letters of a recovery key"},
		{"long", strings.Repeat(sample, 1000), "there are 64000 letters, a recovery key has 64"},
		{"long group", strings.Repeat("c", 1<<16) + "!", "there are more than the 64 letters of a recovery key"},
	} {
		key, err := Parse(typed(t, c.text))
		if _, ok := errors.AsType[*ParseError](err); !ok || err.Error() != c.want || key.Len() != 0 {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func swap(text string, at int, c byte) string { return text[:at] + string(c) + text[at+1:] }

func TestCandidatesTryTheRawBytesFirst(t *testing.T) {
	undashed := strings.ReplaceAll(sample, "-", "")
	for _, c := range []struct {
		text string
		want []string
	}{
		{sample, []string{sample}},
		{strings.ToUpper(sample), []string{strings.ToUpper(sample), sample}},
		{undashed, []string{undashed, sample}},
		{sample + "\n", []string{sample + "\n", sample}},
		{"hunter2", []string{"hunter2"}},
		{"", []string{""}},
		{swap(sample, 0, 'a'), []string{swap(sample, 0, 'a')}},
	} {
		in := typed(t, c.text)
		list := Candidates(in)
		var got []string
		for _, s := range list {
			got = append(got, string(s.Bytes()))
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
			t.Errorf("%q gives %q, want %q", c.text, got, c.want)
		}
		secret.WipeAll(list)
		if string(in.Bytes()) != c.text {
			t.Errorf("%q: wiping the candidates touched the typed text", c.text)
		}
	}
}

func TestExplainLeavesPassphrasesAlone(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{sample, ""},
		{strings.ToUpper(sample), ""},
		{"hunter2", ""},
		{"", ""},
		{"correct horse battery staple correct horse battery staple correct horse", ""},
		{strings.Repeat("x", 71), ""},
		{strings.Repeat("c", 2000), ""},
		{swap(sample, 12, 'a'), "letter 4 of group 2 is none of cbdefghijklnrtuv"},
		{sample[1:], "group 1 has 7 letters, not 8"},
		{sample[9:], "there are 56 letters, a recovery key has 64"},
	} {
		got := ""
		if err := Explain(typed(t, c.text)); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

// TestParseUndoesWhatPeopleDo types random keys in random ways.
func TestParseUndoesWhatPeopleDo(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		key := Generate()
		var b strings.Builder
		for _, c := range string(key.Bytes()) {
			text := string(c)
			if c == '-' {
				text = []string{"-", "", " ", " - ", "\n"}[rng.IntN(5)]
			} else if rng.IntN(2) == 0 {
				text = strings.ToUpper(text)
			}
			b.WriteString(text)
		}
		got, err := Parse(typed(t, b.String()))
		if err != nil || !got.Equal(key) {
			t.Fatalf("%q gives %q, %v", b.String(), got.Bytes(), err)
		}
		secret.WipeAll([]secret.Secret{key, got})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{sample, strings.ToUpper(sample), "", "c", "-", sample + "\n", strings.Repeat("c", 64), "\xff\x00\x1b", sample[:35] + "é" + sample[35:]} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in := secret.Copy(text)
		defer in.Wipe()
		key, err := Parse(in)
		defer key.Wipe()
		checkParsed(t, text, key, err)
		list := Candidates(in)
		defer secret.WipeAll(list)
		if len(list) == 0 || len(list) > 2 || !list[0].Equal(in) || err != nil && len(list) != 1 {
			t.Errorf("%q: %d candidates, the first not the text itself", text, len(list))
		}
		if explained := Explain(in); explained != nil && (err == nil || explained.Error() != err.Error()) {
			t.Errorf("%q: explained as %v, but Parse says %v", text, explained, err)
		}
	})
}

func checkParsed(t *testing.T, text []byte, key secret.Secret, err error) {
	if err == nil {
		again, err2 := Parse(key)
		defer again.Wipe()
		if !pattern.Match(key.Bytes()) || err2 != nil || !again.Equal(key) {
			t.Errorf("%q gives %q, and that %v", text, key.Bytes(), err2)
		}
		return
	}
	e, ok := errors.AsType[*ParseError](err)
	if !ok || key.Len() != 0 || e.Group < 0 || e.Group > Groups || e.Letter < 0 || e.Letter > GroupLength || e.Group == 0 && e.Letter != 0 {
		t.Errorf("%q: %#v", text, err)
	}
}
