package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/testenv"
)

// TestGuide runs the commands of docs/guide.md in their order, on one volume with a TPM
// and a FIDO2 key, each at a terminal of 80 columns, and looks that each prints the lines
// that the guide shows: … stands for any text in one.
func TestGuide(t *testing.T) {
	testenv.Need(t, "cryptsetup", "swtpm", "swtpm_setup", "script")
	guide, err := os.ReadFile("../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := guideSteps(string(guide))
	if strings.Count(steps, "\nexec ") < 6 {
		t.Fatalf("the guide has few commands: %s", steps)
	}
	dir := t.TempDir()
	script := "volume disk\ntpm start\ntpm extend 7 secureboot\nkey KEY 836194\nhelper luksmith-sheet\n" +
		"env PASSWORD=hunter2\nenv PIN=836194\nenv NEWPIN=836194\n" + steps
	if err := os.WriteFile(filepath.Join(dir, "guide.txtar"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, scriptParams(t, dir))
}

// atTerminal gives the terminal of a step the size that every one has.
const atTerminal = "stty cols 80 rows 24; "

// guideSteps makes a script of the blocks of a page that show a terminal.
func guideSteps(page string) string {
	var script strings.Builder
	names := strings.NewReplacer("/dev/sda3", "disk", "tpm2-device=auto", "tpm2-device=$TPM", "fido2-device=auto", "fido2-device=$KEY")
	inside := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case isCommand:
			script.WriteString("\nexec script -qec '" + atTerminal + names.Replace(command) + "' /dev/null\n")
		case strings.TrimSpace(line) != "":
			script.WriteString("shows '" + strings.ReplaceAll(names.Replace(line), "'", "''") + "'\n")
		}
	}
	return script.String()
}

// erased is a line of a terminal that something else took the place of.
var erased = regexp.MustCompile(`[^\n]*\r\x1b\[[JK]`)

// cmdShows wants a line in what the last command printed. … is any text, and blanks
// stand for as many as a table needs.
func cmdShows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: shows LINE")
	}
	var words []string
	for _, word := range strings.Fields(args[0]) {
		words = append(words, strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*"))
	}
	printed := erased.ReplaceAllString(ts.ReadFile("stdout")+ts.ReadFile("stderr"), "")
	printed = strings.ReplaceAll(escapes.ReplaceAllString(printed, ""), "\r", "")
	if !regexp.MustCompile(`(?m)^ *` + strings.Join(words, " +") + "$").MatchString(printed) {
		ts.Fatalf("no line %q in\n%s", args[0], printed)
	}
}
