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

// moduleRoot is where go.mod is, as seen from this package.
const moduleRoot = "../../.."

// goFiles returns the paths of the module's Go files below moduleRoot.
func goFiles(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(moduleRoot, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			list = append(list, path)
		}
		return err
	})
	if err != nil || len(list) < 100 {
		t.Fatalf("looking at %d files: %v", len(list), err)
	}
	return list
}

// TestIdentifiersSpellEnroll: one spelling in the code, so that a search finds all.
func TestIdentifiersSpellEnroll(t *testing.T) {
	t.Parallel()
	for _, path := range goFiles(t) {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && misspelt.MatchString(id.Name) {
				t.Errorf("%s: %s: identifiers spell Enroll", set.Position(id.Pos()), id.Name)
			}
			return true
		})
	}
}
