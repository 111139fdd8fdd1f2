package main

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/internal/cli"
)

// usageError is a mistake in the arguments.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

// Hint is printed below the error.
func (e *usageError) Hint() string { return e.hint }

// flag is one long option of a command.
type flag struct {
	name string // without dashes
	arg  string // placeholder of the value; empty for a switch
	help string
	set  func(value string) error
}

// parseArgs separates options from arguments, which may stand in any order; "--"
// ends the options and a lone "-" is an argument. Hand-written, because a library
// would cost a third of a start.
func parseArgs(args []string, flags []flag) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return append(rest, args...), nil
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			rest = append(rest, arg)
			continue
		}
		if args, err = parseFlag(arg, args, flags); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// afterDashes is what follows a "--".
func afterDashes(args []string) []string {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[i+1:]
	}
	return nil
}

// parseFlag stores one option and returns what is left of args.
func parseFlag(arg string, args []string, flags []flag) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	i := slices.IndexFunc(flags, func(f flag) bool { return "--"+f.name == name })
	if i < 0 {
		var known []string
		for _, f := range flags {
			known = append(known, f.name)
		}
		return nil, cli.Unknown("unknown option "+name, strings.TrimLeft(name, "-"), "--", known)
	}
	f := flags[i]
	switch {
	case f.arg == "" && has:
		return nil, fmt.Errorf("%s takes no value", name)
	case f.arg != "" && !has && len(args) == 0:
		return nil, fmt.Errorf("%s wants a value: %s", name, f.spelling())
	case f.arg != "" && !has:
		value, args = args[0], args[1:]
	}
	if err := f.set(value); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return args, nil
}
