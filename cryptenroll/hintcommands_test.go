package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// commandInHint is a command in a hint: in back quotes, or behind the last colon.
var commandInHint = regexp.MustCompile("(?:`|: )((?:sudo |modprobe |wipefs |cryptsetup |cryptenroll |systemd-|%s )[^`]*)(?:`|$)")

// cmdHint runs the commands of a hint of the last command, as somebody pastes them, and
// wants them to succeed: `hint BEGINNING [WORDS]` adds words to the last of them.
func cmdHint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: hint BEGINNING [WORDS]")
	}
	var found [][]string
	for line := range strings.SplitSeq(ts.ReadFile("stderr"), "\n") {
		if _, hint, ok := strings.Cut(line, ": hint: "); ok && strings.HasPrefix(hint, args[0]) {
			found = append(found, commandInHint.FindAllStringSubmatch(hint, -1)...)
		}
	}
	if len(found) == 0 {
		ts.Fatalf("no hint begins with %q and has a command", args[0])
	}
	for i, m := range found {
		command := m[1]
		if placeholder.MatchString(command) {
			ts.Fatalf("%q: who pastes it has to fill something in", command)
		}
		if i == len(found)-1 {
			command += " " + strings.Join(args[1:], " ")
		}
		ts.Check(ts.Exec("sh", "-c", command))
	}
}

// placeholder is a word of a command that somebody has to replace.
var placeholder = regexp.MustCompile(`(^| |=)(DEVICE|NUMBER|FILE|SLOT|HEX|N)( |$)|…`)

// notPasted are hints that no script runs, and why.
var notPasted = map[string]string{
	"predict the values of this boot too":  "systemd 252 of Debian 12 has no systemd-pcrlock",
	"make the file again: systemd-pcrlock": "systemd 252 of Debian 12 has no systemd-pcrlock",
	"make the file again: systemd-measure": "what it signs with is not known here: a program to look at, not a call",
	"load them (`modprobe":                 "a kernel that lacks the module",
	"cryptsetup may add a keyslot that opens here: `cryptsetup luksAddKey --keyslot-cipher": "a kernel that lacks the cipher",

	"name the partition, not the disk":                                  "a disk with partitions; the command is that of another hint",
	"wipe a keyslot with a token":                                       "a header full of tokens; the command is that of another hint",
	"enrol anew, or re-seal it first":                                   "a token without values of its enrolment, which no version of systemd or luksmith in reach makes",
	"open the volume with a passphrase or the recovery key; what seals": "needs a machine with an event log and a boot partition: follow_test.go makes one and calls follow",
	"name the volumes that are to be followed":                          "as above",
	"nothing can be sealed for the next boot":                           "as above",
	"look at the entries; if you changed":                               "as above",
	"if that is wanted: cryptenroll follow":                             "as above",
	"if that is what it was enrolled with: cryptenroll follow":          "as above",
	"no TPM2 token opens it in this boot":                               "as above",
	"give each a label of its own":                                      "which label, only a person knows",
	"try again as root":                                                 "TestDeniedCallIsPrintedForRoot runs it",
}

// TestEveryHintIsPasted: each hint with a command in the code is run by a script, so
// that it is complete.
func TestEveryHintIsPasted(t *testing.T) {
	pasted := beginningsInScripts(t)
	for text, path := range hintsInCode(t) {
		run := slices.ContainsFunc(pasted, func(begin string) bool { return strings.HasPrefix(text, begin) })
		for begin := range notPasted {
			run = run || strings.HasPrefix(text, begin)
		}
		if !run {
			t.Errorf("%s: no script pastes the hint %q", path, text)
		}
	}
}

// beginningsInScripts are the first words of the lines that begin with hint.
func beginningsInScripts(t *testing.T) (list []string) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:\[root\] )?hint '([^']*)'`).FindAllSubmatch(text, -1) {
			list = append(list, string(m[1]))
		}
	}
	return list
}

// hintsInCode are the texts of hints with a command in the code of this program, and
// where they stand: the arguments of WithHint and every other text that looks like one.
// What is put together at run time has %s where something is not known.
func hintsInCode(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{".", "../tokens", "../luks2", "../internal/cli", "../internal/askpass"} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool { return collectHint(n, path, found) })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// collectHint notes a node that is a hint with a command. It reports whether to look
// further down.
func collectHint(n ast.Node, path string, found map[string]string) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "WithHint" && len(n.Args) == 2 {
			if text := textOf(n.Args[1]); commandInHint.MatchString(text) {
				found[text] = path
			}
		}
	case *ast.BinaryExpr, *ast.BasicLit:
		text := textOf(n.(ast.Expr))
		if commandInHint.MatchString(strings.ReplaceAll(text, ": %s", "")) && !strings.HasPrefix(text, "^") {
			found[text] = path
			return false
		}
	}
	return true
}

// textOf is a text as far as the code has it, with %s for the rest.
func textOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return textOf(e.X) + textOf(e.Y)
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return text
		}
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" {
			return textOf(e.Args[0])
		}
	}
	return "%s"
}
