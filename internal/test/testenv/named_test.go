package testenv

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testFunction = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(`)
	namedTest    = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")
	namedScript  = regexp.MustCompile("`([a-z0-9-]+\\.txtar)`")
)

// TestNamedTestsExist: a document that names the test which shows something is worth
// no more than the name.
func TestNamedTestsExist(t *testing.T) {
	have := map[string]bool{}
	err := filepath.WalkDir("../../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunction.FindAllSubmatch(text, -1) {
			have[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("../../../*/testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		have[filepath.Base(path)] = true
	}
	documents, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, pattern := range []*regexp.Regexp{namedTest, namedScript} {
			for _, m := range pattern.FindAllStringSubmatch(string(text), -1) {
				if !have[m[1]] {
					t.Errorf("%s names %s, which does not exist", filepath.Base(path), m[1])
				}
			}
		}
	}
}
