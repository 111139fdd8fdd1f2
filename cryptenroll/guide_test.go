package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/testenv"
)

var update = flag.Bool("update", false, "write what the pages show of a terminal anew")

// TestGuide runs the commands that README and the pages of docs/ show, page by page and
// in their order, at a terminal of 80 columns, and compares what the terminal shows then
// with the page; -update writes it there. A page says in a comment, which begins with
// scriptOpens, what there is before a command: lines of a script.
func TestGuide(t *testing.T) {
	testenv.Need(t, "cryptsetup", "swtpm", "swtpm_setup")
	dir := t.TempDir()
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]*page{}
	for _, path := range append(paths, "../README.md") {
		if p := readPage(t, path); len(p.captures) > 0 {
			name := strings.TrimSuffix(filepath.Base(path), ".md")
			pages[name] = p
			if err := os.WriteFile(filepath.Join(dir, name+".txtar"), []byte(p.script()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(pages["guide"].captures) < 8 || pages["README"] == nil {
		t.Fatal("the pages show few commands")
	}
	t.Cleanup(func() { // the scripts are over
		for _, p := range pages {
			p.write(t)
		}
	})
	params := scriptParams(t, dir)
	params.Cmds["answer"] = cmdAnswer
	params.Cmds["named"] = cmdNamed
	params.Cmds["captured"] = func(ts *testscript.TestScript, neg bool, args []string) {
		p := pages[strings.TrimPrefix(filepath.Base(ts.Name()), "script-")]
		p.run(ts, args)
	}
	testscript.Run(t, params)
}

// page is a document that shows terminals.
type page struct {
	path     string
	lines    []string
	captures []*capture
}

// capture is a command in a page, and what comes of it.
type capture struct {
	command    string
	begin, end int // lines below the command
	setUp      []string
	shown      []string
}

// scriptOpens begins the comment with what the commands below it need.
const scriptOpens = "<!-- before the commands below:"

func readPage(t *testing.T, path string) *page {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &page{path: path, lines: strings.Split(string(text), "\n")}
	var setUp []string
	inside, comment := false, false
	for i, line := range p.lines {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case line == scriptOpens:
			comment = true
		case comment && line == "-->":
			comment = false
		case comment:
			setUp = append(setUp, line)
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			p.captures = append(p.captures, &capture{command: command, begin: i + 1, end: i + 1, setUp: setUp})
			setUp = nil
		case inside && len(p.captures) > 0:
			p.captures[len(p.captures)-1].end = i + 1
		}
	}
	return p
}

// script runs the page.
func (p *page) script() string {
	var b strings.Builder
	for i, c := range p.captures {
		for _, line := range c.setUp {
			b.WriteString(line + "\n")
		}
		b.WriteString("captured " + strconv.Itoa(i) + "\n")
	}
	return b.String()
}

// run executes a command of the page, as the shell does that somebody types it into.
func (p *page) run(ts *testscript.TestScript, args []string) {
	i, err := strconv.Atoi(args[0])
	ts.Check(err)
	c, d := p.captures[i], devicesOf(ts)
	cmd := exec.Command("sh", "-c", strings.NewReplacer(d.names...).Replace(c.command))
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "LC_ALL", "TPM", "KEY", "HOME", "TMPDIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, "TERM=xterm-256color", "SYSTEMD_EMOJI=0")
	seen, err := testenv.Seat{Columns: 80, Rows: 24, Answers: d.answers}.Capture(cmd)
	ts.Check(err)
	c.shown = asShown(seen.Text(), d.names)
	ts.Logf("$ %s\n%s", c.command, strings.Join(c.shown, "\n"))
	if diff := cmp.Diff(p.lines[c.begin:c.end], c.shown); diff != "" && !*update {
		ts.Fatalf("%s shows something else: go test ./cryptenroll -run TestGuide -update\n%s", p.path, diff)
	}
}

// write puts what was seen into the page, with -update.
func (p *page) write(t *testing.T) {
	if !*update || t.Failed() {
		return
	}
	var lines []string
	from := 0
	for _, c := range p.captures {
		lines = append(append(lines, p.lines[from:c.begin]...), c.shown...)
		from = c.end
	}
	text := strings.Join(append(lines, p.lines[from:]...), "\n")
	if err := os.WriteFile(p.path, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}

// varying is what no two runs have in common, and what a page shows for it.
var varying = []struct {
	text  *regexp.Regexp
	shown string
}{
	{regexp.MustCompile(`\b([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}\b`), "cukjrktc-nehcrhkg-gucbrgte-jerhrcui-gukftecf-dlinvdgr-vhljnelf-jjbdbfgd"},
	{regexp.MustCompile(`\b([0-9a-f]{4})[0-9a-f]{60,}\b`), "$1…"},
	{regexp.MustCompile(`, [0-9.]+ m?s\b`), ", … ms"},
	{regexp.MustCompile(`JSON [0-9]+ of`), "JSON … of"},
	{regexp.MustCompile(`(?m)^Waiting for another program, which has access to much memory locked\.\n`), ""},
	{regexp.MustCompile(`(?m)(^▀+\n)+`), "(a QR code of the key)\n"},
}

// asShown is what a terminal has as a page shows it: by the names that the page has, without what
// varies.
func asShown(screen string, names []string) []string {
	var back []string
	for i := 0; i < len(names); i += 2 {
		back = append(back, names[i+1], names[i])
	}
	screen = strings.NewReplacer(back...).Replace(strings.TrimRight(screen, "\n"))
	for _, v := range varying {
		screen = v.text.ReplaceAllString(screen, v.shown)
	}
	if screen == "" {
		return nil
	}
	return strings.Split(screen, "\n")
}

// cmdAnswer says what is typed at a question: `answer QUESTION TEXT…`.
func cmdAnswer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: answer QUESTION TEXT…")
	}
	a := testenv.Answer{Question: args[0]}
	for _, text := range args[1:] {
		a.Keys = append(a.Keys, text+"\r")
	}
	d := devicesOf(ts)
	d.answers = append([]testenv.Answer{a}, d.answers...)
}

// cmdNamed says what something is called in the page and here: `named PAGE HERE`.
func cmdNamed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: named PAGE HERE")
	}
	d := devicesOf(ts)
	d.names = append(d.names, args...)
}
