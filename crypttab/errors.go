package crypttab

import (
	"errors"
	"fmt"
	"strings"
)

// SyntaxError says what is wrong where. The same type reports what ends reading
// and what is only warned about: the function that returns it says which.
type SyntaxError struct {
	File string // "" when the text came from a command line
	Line int    // from 1; 0 when the whole file is meant
	// Field is "name", "device", "key", "options", "line", or for one option its
	// word up to and including the "=": "options: tries=".
	Field string
	Err   error // the reason
}

func (e *SyntaxError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		fmt.Fprintf(&b, "%s: ", e.Field)
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// Reasons to branch on. They come wrapped in a [SyntaxError] with the value.
var (
	// ErrUnknownOption: no systemd, Debian or luksmith option has that name.
	ErrUnknownOption = errors.New("unknown option")
	// ErrBadValue: the value has the wrong shape. systemd says "Invalid argument".
	ErrBadValue = errors.New("invalid value")
	// ErrRange: a number has the right shape but is too large or too small.
	ErrRange = errors.New("value out of range")
	// ErrUntrusted: somebody besides root can write the file.
	ErrUntrusted = errors.New("others than root can change the file")
)
