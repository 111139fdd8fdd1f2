package spec

import (
	"os"
	"strings"
	"testing"

	"luksmith/tokens/all"
)

// TestExamplesAreSpecs judges what the documentation shows by the reader and by the
// schema.
func TestExamplesAreSpecs(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../docs/examples/keyslots.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/ensure.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(example)}
	for i, part := range strings.Split(string(manual), "```") {
		if text, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			texts = append(texts, text)
		}
	}
	if len(texts) < 2 {
		t.Errorf("%d examples", len(texts))
	}
	schema := validator(t)
	for _, text := range texts {
		if _, err := Parse("example", []byte(text), all.New()); err != nil {
			t.Errorf("%v in:\n%s", err, text)
		}
		if err := schema.Validate(asJSON(t, []byte(text))); err != nil {
			t.Errorf("%v in:\n%s", err, text)
		}
	}
}
