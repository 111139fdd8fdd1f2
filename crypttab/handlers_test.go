package crypttab_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"luksmith/crypttab"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
	"luksmith/tokens/all"
)

// everyString are the recorded option strings and those that go to the systemd of this
// machine.
func everyString(t *testing.T) []string {
	t.Helper()
	table, err := os.ReadFile("testdata/option-verdicts.tsv")
	if err != nil {
		t.Fatal(err)
	}
	list := slices.Concat(moreStrings, since257)
	for line := range strings.Lines(string(table)) {
		text, _, _ := strings.Cut(line, "\t")
		list = append(list, text)
	}
	return list
}

// TestHandlersTakeWhatCrypttabTakes: a value that was judged good in the file was
// refused by the token type once the attach had begun.
func TestHandlersTakeWhatCrypttabTakes(t *testing.T) {
	t.Parallel()
	judged := 0
	for _, text := range everyString(t) {
		o, _, err := all.New().Grammar().ParseOptions(text)
		if err != nil {
			continue
		}
		for _, w := range o.Words {
			for _, option := range handlerOptions(all.New(), w.Name) {
				judged++
				var unusable *crypttab.UnusableError
				if err := option.Set(w.Value); err != nil && !errors.As(err, &unusable) {
					t.Errorf("%s: taken from crypttab, refused by the handler: %v", w, err)
				}
			}
		}
	}
	if judged < 40 {
		t.Errorf("only %d values went to handlers", judged)
	}
}

func handlerOptions(s tokens.Set, name string) (list []tokens.Option) {
	for _, h := range s {
		for _, o := range h.Options() {
			if o.Name == name && o.Place&tokens.Crypttab != 0 {
				list = append(list, o)
			}
		}
	}
	return list
}

// TestOptionsOfATypeAreKnownOnceItIsInTheSet: no list of types stands here.
func TestOptionsOfATypeAreKnownOnceItIsInTheSet(t *testing.T) {
	t.Parallel()
	grammar := func() crypttab.Grammar { return append(all.New(), &tokentest.Toy{}).Grammar() }
	o, warnings, err := grammar().ParseOptions("toy-device=/dev/toy0,tpm2-device=auto")
	if err != nil || len(warnings) != 0 || !slices.Equal(o.Types, []string{"toy", "tpm2"}) {
		t.Errorf("%v %v: %q", warnings, err, o.Types)
	}
	if got := grammar().Suggest(crypttab.Word{Name: "toy-devcie", Value: "x", HasValue: true}); got != "toy-device=x" {
		t.Errorf("suggestion %q", got)
	}
	f, err := crypttab.Parse(strings.NewReader("a /dev/vda - toy-device=auto\nb /dev/vdb - toy-device=auto"), "f")
	if err != nil {
		t.Fatal(err)
	}
	findings := crypttab.Lint(f, &crypttab.LintOptions{Grammar: grammar(), Facts: func(e *crypttab.Entry, _ *crypttab.Options) (*crypttab.VolumeFacts, error) {
		facts := &crypttab.VolumeFacts{LUKS: 2}
		if e.Name == "a" {
			facts.TokenTypes = []string{"test-toy"}
		}
		return facts, nil
	}})
	if len(findings) != 1 || findings[0].Text() != "f:2: error: options: toy-device=: the header of /dev/vdb has no test-toy token" {
		t.Errorf("%v", findings)
	}
}
