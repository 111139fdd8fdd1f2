package testenv

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What stays easy to read: lines of a file, lines of a function in the middle and of
// all but one in twenty, and methods of a type of cryptenroll.
const (
	linesOfFile     = 400
	linesOfMedian   = 10
	linesOfLongOnes = 30
	methodsOfType   = 40
)

// sizes gathers the lengths of the module's functions and the methods of its types.
type sizes struct {
	functions []int
	methods   map[string]int // by folder and type
}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	t.Parallel()
	s := sizes{methods: map[string]int{}}
	for _, path := range goFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > linesOfFile {
			t.Errorf("%s has %d lines, more than %d: divide it by what it is about", path, n, linesOfFile)
		}
		if !strings.HasSuffix(path, "_test.go") {
			s.add(t, path, text)
		}
	}
	slices.Sort(s.functions)
	n := len(s.functions)
	if n < 1000 {
		t.Fatalf("only %d functions found", n)
	}
	if median, long := s.functions[n/2], s.functions[n*95/100]; median > linesOfMedian || long > linesOfLongOnes {
		t.Errorf("functions have %d lines in the middle and 95 of 100 up to %d: want %d and %d", median, long, linesOfMedian, linesOfLongOnes)
	}
	for name, n := range s.methods {
		if strings.HasPrefix(name, moduleRoot+"/cryptenroll.") && n >= methodsOfType {
			t.Errorf("%s has %d methods: want fewer than %d", name, n, methodsOfType)
		}
	}
}

// add reads one file.
func (s *sizes) add(t *testing.T, path string, text []byte) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		s.functions = append(s.functions, set.Position(fn.End()).Line-set.Position(fn.Pos()).Line+1)
		if fn.Recv != nil {
			s.methods[filepath.Dir(path)+"."+receiver(fn)]++
		}
	}
}

// receiver is the name of a method's type.
func receiver(fn *ast.FuncDecl) string {
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	return typ.(*ast.Ident).Name
}
