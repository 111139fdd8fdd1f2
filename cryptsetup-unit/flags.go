package main

import (
	"fmt"
	"slices"
	"strings"
)

// usageError is a mistake in the arguments. Its hint names the help.
type usageError string

func (e usageError) Error() string { return string(e) }

// Hint is printed below the error.
func (usageError) Hint() string { return "cryptsetup-unit --help lists the commands" }

// flag is one long option of a command.
type flag struct {
	name string // without dashes
	arg  string // placeholder of the value; empty for a switch
	help string
	set  func(value string) error
}

// verb is one command.
type verb struct {
	name string // may have two words: "crypttab lint"
	args string // for the usage line
	help string
	min  int // number of arguments
	max  int
	// flags returns the options bound to a new value of the command's own, and the
	// function that runs it.
	make func() (flags []flag, run func(*app, []string) error)
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

// parseFlag stores one option and returns what is left of args.
func parseFlag(arg string, args []string, flags []flag) ([]string, error) {
	name, value, has := strings.Cut(arg, "=")
	i := slices.IndexFunc(flags, func(f flag) bool { return "--"+f.name == name })
	if i < 0 {
		return nil, usageError(fmt.Sprintf("unknown option %s", name))
	}
	f := flags[i]
	switch {
	case f.arg == "" && has:
		return nil, usageError(fmt.Sprintf("%s takes no value", name))
	case f.arg != "" && !has && len(args) == 0:
		return nil, usageError(fmt.Sprintf("%s wants a value: %s=%s", name, name, f.arg))
	case f.arg != "" && !has:
		value, args = args[0], args[1:]
	}
	if err := f.set(value); err != nil {
		return nil, usageError(fmt.Sprintf("%s: %v", name, err))
	}
	return args, nil
}

// usage is what --help prints.
func usage(name string, verbs []verb) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Attach and detach encrypted volumes at boot.\n\nUsage: %s COMMAND [OPTION...]\n\n", name)
	for _, v := range verbs {
		fmt.Fprintf(&b, "  %s\n      %s\n", strings.TrimSpace(v.name+" "+v.args), v.help)
		flags, _ := v.make()
		for _, f := range flags {
			fmt.Fprintf(&b, "      %-24s %s\n", f.spelling(), f.help)
		}
	}
	b.WriteString("\n  --help, --version\n\nSee cryptsetup-unit(8) and luksmith-crypttab(5).\n")
	return b.String()
}

func (f flag) spelling() string {
	if f.arg == "" {
		return "--" + f.name
	}
	return "--" + f.name + "=" + f.arg
}
