// Command cryptsetup-unit attaches the encrypted volumes of crypttab at boot, with
// or without systemd and udev: see cryptsetup-unit(8).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"luksmith/internal/cli"
)

func main() { os.Exit(run(os.Args)) }

// run is main with its arguments and exit status in the open.
func run(argv []string) int {
	msg := &cli.Messages{Name: filepath.Base(argv[0]), Err: cli.NewStream(os.Stderr)}
	advice, err := cli.Protect()
	if err == nil {
		ctx, stop := cli.WithSignals(context.Background())
		defer stop()
		a := newApp(ctx, msg)
		a.advice = advice
		err = a.run(argv[1:])
	}
	msg.Error(err)
	return cli.ExitStatusAs(argv[0], err)
}

// verbs are the commands. attach and detach are those of systemd-cryptsetup.
func verbs() []verb {
	return []verb{
		{"attach", "VOLUME [DEVICE [KEY-FILE] [OPTIONS]]", "unlock one volume and map it; only with its name, as crypttab says", 1, 4, attachVerb},
		{"attach-all", "", "attach what crypttab and the kernel command line name", 0, 0, attachAllVerb},
		{"detach", "VOLUME", "remove a mapping", 1, 1, detachVerb},
		{"status", "VOLUME", "tell how a volume was attached", 1, 1, statusVerb},
		{"crypttab lint", "[FILE]", "look for mistakes in crypttab", 0, 1, lintVerb},
	}
}

// run carries out one command.
func (a *app) run(args []string) error {
	if len(args) == 0 {
		return usageError("no command given")
	}
	switch args[0] {
	case "--help", "-h":
		fmt.Fprint(a.out, usage(a.msg.Name, verbs()))
		return nil
	case "--version":
		fmt.Fprint(a.out, cli.VersionText("cryptsetup-unit"))
		return nil
	}
	for _, v := range verbs() {
		rest, ok := cutWords(args, v.name)
		if !ok {
			continue
		}
		flags, run := v.make()
		rest, err := parseArgs(rest, flags)
		if err != nil {
			return err
		}
		if len(rest) < v.min || len(rest) > v.max {
			return usageError(fmt.Sprintf("%s wants: %s", v.name, strings.TrimSpace(v.name+" "+v.args)))
		}
		return run(a, rest)
	}
	return usageError(fmt.Sprintf("unknown command %q", args[0]))
}

// cutWords removes the words of a command from the front.
func cutWords(args []string, name string) ([]string, bool) {
	for word := range strings.FieldsSeq(name) {
		if len(args) == 0 || args[0] != word {
			return nil, false
		}
		args = args[1:]
	}
	return args, true
}
