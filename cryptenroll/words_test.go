package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWordsOfOldAreGone reads testdata/words.tsv: messages that were unclear and what
// took their place. None comes back, and each new one is shown by a script or test.
func TestWordsOfOldAreGone(t *testing.T) {
	table, err := os.ReadFile("testdata/words.tsv")
	if err != nil {
		t.Fatal(err)
	}
	code, tests := sources(t)
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		row := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(row) != 3 {
			t.Fatalf("a row has %d columns: %q", len(row), line)
		}
		if strings.Contains(code, row[0]) {
			t.Errorf("%q is said again; better is %q", row[0], row[1])
		}
		shown := strings.Contains(tests, "func "+row[2])
		if strings.HasSuffix(row[2], ".txtar") {
			_, err := os.Stat(filepath.Join("testdata/script", row[2]))
			shown = err == nil
		}
		if !shown {
			t.Errorf("%q: there is no %s", row[1], row[2])
		}
	}
}

// sources are the code of the commands and of what they say, and its tests.
func sources(t *testing.T) (code, tests string) {
	t.Helper()
	var c, s strings.Builder
	for _, dir := range []string{".", "../tokens", "../luks2", "../internal/cli", "../internal/askpass", "../crypttab", "../cryptsetup-unit"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.HasSuffix(path, "_test.go") {
				s.Write(text)
			} else {
				c.Write(text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c.String(), s.String()
}
