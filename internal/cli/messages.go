// Package cli is what both commands share towards the person or script that runs
// them: messages and hints, exit status, escaping, tables, JSON, signals and the
// protection of the process.
package cli

import (
	"errors"
	"io"
	"strconv"
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
	// Level is the least important message that is printed; the zero value prints
	// all.
	Level Level
}

// Level is the importance of messages, higher is more important.
type Level int

// The levels of syslog(3) that make a difference here.
const (
	LevelInfo Level = iota
	LevelNotice
	LevelWarning
	LevelError
	LevelNothing
)

// ParseLevel reads $SYSTEMD_LOG_LEVEL: a word or number of syslog(3), or a list of
// them for several targets, of which that of the console counts. What is none
// prints all.
func ParseLevel(text string) Level {
	level := LevelInfo
	for item := range strings.SplitSeq(text, ",") {
		target, word, ok := strings.Cut(item, ":")
		if !ok {
			word = target
		} else if target != "console" {
			continue
		}
		level = parseLevel(word)
	}
	return level
}

func parseLevel(word string) Level {
	levels := []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
	number, err := strconv.Atoi(word)
	if err != nil {
		for i, w := range levels {
			if w == word {
				number, err = i, nil
			}
		}
	}
	switch {
	case err != nil || number > 5:
		return LevelInfo
	case number == 5:
		return LevelNotice
	case number == 4:
		return LevelWarning
	case number == 3:
		return LevelError
	}
	return LevelNothing
}

// ErrSaid is returned by a run that failed and has said so itself.
var ErrSaid = errors.New("failed as said above")

// maxHints is how many hints follow an error. More than two are not read.
const maxHints = 2

// Error prints err and its hints. nil prints nothing.
func (m *Messages) Error(err error) {
	if err == nil || errors.Is(err, ErrSaid) || m.Level > LevelError {
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
func (m *Messages) Warning(text string) {
	if m.Level <= LevelWarning {
		m.line("warning", Yellow, text)
	}
}

// Plain prints a line without the name, if messages of that level are wanted.
func (m *Messages) Plain(level Level, format string, args ...any) {
	if m.Level <= level {
		m.Err.Linef(format, args...)
	}
}

// WarnError prints an error that does not end the run, with its hints.
func (m *Messages) WarnError(err error) {
	if m.Level > LevelWarning {
		return
	}
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
	text = m.Err.Escape(text)
	text = m.Err.wrapped(Width(Escape(m.Name))+len(": ")+len(kind)+len(": "), text)
	_, _ = io.WriteString(m.Err.Raw(), Escape(m.Name)+": "+m.Err.Colour.Paint(style, kind+":")+" "+text+"\n")
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
