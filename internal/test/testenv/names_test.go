package testenv

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// misspelt is the British spelling of the main verb, which prose keeps to itself.
var misspelt = regexp.MustCompile(`[Ee]nrol([^l]|$)`)

// TestIdentifiersSpellEnroll: one spelling in the code, so that a search finds all.
func TestIdentifiersSpellEnroll(t *testing.T) {
	t.Parallel()
	const root = "../../.."
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && misspelt.MatchString(id.Name) {
				t.Errorf("%s: %s: identifiers spell Enroll", set.Position(id.Pos()), id.Name)
			}
			return true
		})
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("looking at %d files: %v", files, err)
	}
}
