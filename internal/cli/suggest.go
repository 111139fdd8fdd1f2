package cli

import (
	"fmt"
	"strings"

	"luksmith/crypttab"
	"luksmith/tokens"
)

// Usage is an error of the command line. It is [tokens.ErrUsage].
func Usage(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

type usageError string

func (e usageError) Error() string { return string(e) }

// Is makes it tokens.ErrUsage.
func (e usageError) Is(target error) bool { return target == tokens.ErrUsage }

// UsageOf is an error about the value of an option.
func UsageOf(option string, err error) error { return &optionError{option, err} }

type optionError struct {
	option string
	err    error
}

func (e *optionError) Error() string { return e.option + ": " + e.err.Error() }

func (e *optionError) Unwrap() error { return e.err }

// Is makes it tokens.ErrUsage.
func (e *optionError) Is(target error) bool { return target == tokens.ErrUsage }

// Unknown is an error about a word that is none of the known ones: `unknown command
// "lst"; did you mean list?`. kind says what it should be and holds the word. prefix
// stands before the known words on the command line, such as "--".
func Unknown(kind, word, prefix string, known []string) error {
	near := crypttab.Nearest(word, known)
	for _, k := range known {
		if near == "" && len(word) > 3 && strings.HasSuffix(k, "-"+word) {
			near = k
		}
	}
	if near != "" {
		return Usage("%s; did you mean %s%s?", kind, prefix, near)
	}
	return Usage("%s", kind)
}
