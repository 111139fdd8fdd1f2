// Package cli is what both commands share towards the person or script that runs
// them: messages and hints, exit status, escaping, tables, JSON, signals and the
// protection of the process.
package cli

import (
	"io"
	"strings"
)

// Messages prints to standard error. The rules:
//
//   - `NAME: error: …` ends the run or one of its ways. One line for each failure:
//     joined errors are taken apart, with their common context in front of each.
//     The text is what Error() says: a path, slot or token once, what was being
//     done, the cause; lower case, no full stop.
//   - `NAME: hint: …` follows the errors: the next command to run, or the next
//     thing to do. At most two. Hints come from errors in the chain that have a
//     Hint method, the outermost first; only if there is none, from the table of
//     defaults by sentinel. The same hint is printed once.
//   - `NAME: warning: …` is for what the person should change, while the run goes on.
//   - Everything else is a plain line without the name.
//   - Nothing is printed unescaped, and never a secret.
type Messages struct {
	Name string // of the command, as it was called
	Err  *Stream
}

// maxHints is how many hints follow an error. More than two are not read.
const maxHints = 2

// Error prints err and its hints. nil prints nothing.
func (m *Messages) Error(err error) {
	if err == nil {
		return
	}
	for _, line := range errorLines(err) {
		m.line("error", Red, line)
	}
	for _, hint := range hints(err) {
		m.line("hint", Blue, hint)
	}
}

// Warning prints one thing that should be looked at.
func (m *Messages) Warning(text string) { m.line("warning", Yellow, text) }

// WarnError prints an error that does not end the run, with its hints.
func (m *Messages) WarnError(err error) {
	for _, line := range errorLines(err) {
		m.line("warning", Yellow, line)
	}
	for _, hint := range hints(err) {
		m.line("hint", Blue, hint)
	}
}

// line writes one message with a single call, so that lines of parallel runs do
// not mix.
func (m *Messages) line(kind string, style Style, text string) {
	_, _ = io.WriteString(m.Err.Raw(), Escape(m.Name)+": "+m.Err.Colour.Paint(style, kind+":")+" "+Escape(text)+"\n")
}

// errorLines takes joined errors apart: "unlocking X: " around errors.Join(a, b)
// gives "unlocking X: a" and "unlocking X: b". Equal lines come once.
func errorLines(err error) []string {
	var lines []string
	seen := map[string]bool{}
	for _, line := range splitJoined(err) {
		if !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	return lines
}

func splitJoined(err error) []string {
	text := err.Error()
	if children := joinedErrors(err); children != nil {
		var lines []string
		for _, child := range children {
			lines = append(lines, splitJoined(child)...)
		}
		return lines
	}
	inner, ok := err.(interface{ Unwrap() error })
	if !ok || inner.Unwrap() == nil {
		return []string{text}
	}
	parts := splitJoined(inner.Unwrap())
	prefix, suffixed := strings.CutSuffix(text, inner.Unwrap().Error())
	if len(parts) == 1 || !suffixed {
		return []string{text}
	}
	for i := range parts {
		parts[i] = prefix + parts[i]
	}
	return parts
}

// joinedErrors returns the parts of an errors.Join; nil for an error that wraps
// several but has a text of its own.
func joinedErrors(err error) []error {
	multi, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	children := multi.Unwrap()
	texts := make([]string, len(children))
	for i, child := range children {
		texts[i] = child.Error()
	}
	if len(children) == 0 || strings.Join(texts, "\n") != err.Error() {
		return nil
	}
	return children
}
