package crypttab

import (
	"errors"
	"fmt"
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

func (e *SyntaxError) Error() string { return e.place() + e.what() }

// place is "FILE:LINE: ".
func (e *SyntaxError) place() string {
	switch {
	case e.File == "":
		return ""
	case e.Line == 0:
		return e.File + ": "
	}
	return fmt.Sprintf("%s:%d: ", e.File, e.Line)
}

// what is the field and the reason.
func (e *SyntaxError) what() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
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
	// ErrUntrusted: somebody besides root can write the file or its folder.
	ErrUntrusted = errors.New("others than root can change it")
)

// UnusableError is about a value that has the form systemd wants but cannot work, such
// as the name of a device that no driver knows. The option counts as given: what asks
// for a token type keeps asking, and that way to a key fails for this reason while the
// others are tried.
type UnusableError struct{ Err error }

func (e *UnusableError) Error() string { return e.Err.Error() }
func (e *UnusableError) Unwrap() error { return e.Err }
