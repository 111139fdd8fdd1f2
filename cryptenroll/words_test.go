package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWordsOfOldAreGone reads testdata/words.tsv: messages that were unclear and what
// took their place. None comes back, and the script or test named there has words of
// each new one.
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
		if text := shownBy(tests, row[2]); text == "" {
			t.Errorf("%q: there is no %s", row[1], row[2])
		} else if !hasWordsOf(text, row[1]) {
			t.Errorf("%s has no words of %q", row[2], row[1])
		}
	}
}

// shownBy is the script, or the file with the test, of that name; "" without one.
func shownBy(tests []string, name string) string {
	if strings.HasSuffix(name, ".txtar") {
		text, _ := os.ReadFile(filepath.Join("testdata/script", name))
		return string(text)
	}
	for _, text := range tests {
		if strings.Contains(text, "func "+name+"(") {
			return text
		}
	}
	return ""
}

// hasWordsOf reports whether a test has three words of a message in a row. The others
// may be patterns.
func hasWordsOf(test, message string) bool {
	plain := strings.NewReplacer(`\`, "", `"`, "", "'", "", ";", "", ":", "", ",", "")
	test = plain.Replace(test)
	words := strings.Fields(plain.Replace(message))
	for i := 0; i+3 <= len(words); i++ {
		if strings.Contains(test, strings.Join(words[i:i+3], " ")) {
			return true
		}
	}
	return len(words) < 3 && strings.Contains(test, message)
}

// sources are the code of the commands and of what they say, and its tests.
func sources(t *testing.T) (code string, tests []string) {
	t.Helper()
	var c strings.Builder
	for _, dir := range []string{".", "../tokens", "../luks2", "../internal/cli", "../internal/askpass", "../crypttab", "../cryptsetup-unit"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.HasSuffix(path, "_test.go") {
				tests = append(tests, string(text))
			} else {
				c.Write(text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c.String(), tests
}
