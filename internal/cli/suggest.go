package cli

import (
	"strings"

	"luksmith/crypttab"
	"luksmith/tokens"
)

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
		return tokens.Usagef("%s; did you mean %s%s?", kind, prefix, near)
	}
	return tokens.Usagef("%s", kind)
}
