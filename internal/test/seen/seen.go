// Package seen looks at what commands say in the places where somebody may read it:
// terminals of different size and kind, and a pipe.
package seen

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"

	"luksmith/internal/cli"
	"luksmith/internal/test/testenv"
)

// View is a place where somebody may look at what a command says.
type View struct {
	Name          string
	columns, rows int
	env           []string
	pipe          bool // standard output and standard error are pipes
	colour        bool
	redrawn       bool // lines may be taken back
	ascii         bool
}

// all are the views that there are.
var all = []View{
	{Name: "80 columns", columns: 80, rows: 24, env: []string{"TERM=xterm-256color"}, colour: true, redrawn: true},
	{Name: "120 columns", columns: 120, rows: 40, env: []string{"TERM=xterm-256color"}, colour: true, redrawn: true},
	{Name: "NO_COLOR", columns: 80, rows: 24, env: []string{"TERM=xterm-256color", "NO_COLOR=1"}, redrawn: true},
	{Name: "LC_ALL=C", columns: 80, rows: 24, env: []string{"TERM=xterm-256color", "LC_ALL=C"}, colour: true, redrawn: true, ascii: true},
	{Name: "pipe", columns: 80, rows: 24, env: []string{"TERM=xterm-256color"}, pipe: true},
	{Name: "dumb terminal", columns: 80, rows: 24, env: []string{"TERM=dumb", "LC_ALL=C"}, ascii: true},
}

// Views are all of them with `make e2e`, else the first and the last.
func Views() []View {
	if testenv.EndToEnd() {
		return all
	}
	return []View{all[0], all[len(all)-1]}
}

// Look runs a command in a view, with its environment behind that of cmd, and returns
// its status and text, without sequences, and what is wrong with how it looks.
func (v *View) Look(cmd *exec.Cmd, answers []testenv.Answer) (status int, text string, faults []string, err error) {
	cmd.Env = append(append(cmd.Env, "SYSTEMD_EMOJI=0", "LC_ALL=C.UTF-8"), v.env...)
	var piped bytes.Buffer
	if v.pipe {
		cmd.Stdout, cmd.Stderr = &piped, &piped
	}
	seen, err := testenv.Seat{Columns: v.columns, Rows: v.rows, Answers: answers}.Capture(cmd)
	if err != nil {
		return 0, "", nil, err
	}
	if v.pipe {
		seen.Raw = strings.ReplaceAll(piped.String(), "\n", "\r\n")
	}
	text = strings.TrimRight(seen.Text(), "\n")
	return seen.Status, text, v.faults(seen.Raw, text), nil
}

// EndsWith reports whether a regular expression fits the last message of a text, which
// may be wrapped.
func EndsWith(text, expression string) bool {
	words := strings.Join(strings.Fields(expression), `\s+`)
	return regexp.MustCompile(`(?ms)^ *` + words + `\s*\z`).MatchString(text)
}

var (
	lineEnd        = regexp.MustCompile(`\r+\n`)
	colourSequence = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	// whole are lines that are wider for a reason: what is pasted or read by programs, and tables.
	whole = regexp.MustCompile("^ *(\\(?`?(cryptenroll|cryptsetup|sudo) |luks-|https?:)|^\\S+:\\d+: (was|now|nothing to change): |\\S  .*\\S  |^SLOT |^ *\\d+ \\w+ +")
)

// faults are what is wrong with what a command wrote.
func (v *View) faults(raw, text string) (list []string) {
	if !v.colour && colourSequence.MatchString(raw) {
		list = append(list, "there is colour")
	}
	if plain := lineEnd.ReplaceAllString(raw, ""); !v.redrawn && strings.ContainsAny(plain, "\x1b\r\b") {
		list = append(list, "there are control sequences")
	}
	for line := range strings.SplitSeq(text, "\n") {
		if v.ascii && strings.ContainsFunc(line, func(r rune) bool { return r > '~' }) {
			list = append(list, "not ASCII: "+line)
		}
		if !v.pipe && cli.Width(line) > v.columns && !whole.MatchString(line) {
			list = append(list, "too wide: "+line)
		}
	}
	return list
}
