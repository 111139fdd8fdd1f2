package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/internal/cli"
	"luksmith/tokens"
)

// command makes a subcommand whose options stand in sections. use is its name, if
// any, and its arguments.
func (a *app) command(use, short string, sections []section, run func(*cobra.Command, []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		a.options.choose()
		return run(c, args)
	}}
	c.Flags().SortFlags = false
	for _, s := range sections {
		c.Flags().AddFlagSet(s.flags)
	}
	refuseTwice(c.Flags())
	if completes(a.call) {
		(&offers{a}).register(c)
	}
	// A function and not a template: cobra's templates would keep the linker from
	// leaving out what is not used.
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), helpText(a.name, c, use, sections)) })
	return c
}

func helpText(name string, c *cobra.Command, use string, sections []section) string {
	var b strings.Builder
	line := strings.TrimSpace(name + " [OPTIONS] " + use)
	if c.HasParent() {
		_, arguments, _ := strings.Cut(use, " ")
		line = strings.TrimSpace(c.CommandPath() + " [OPTIONS] " + arguments)
	}
	fmt.Fprintf(&b, "%s\n\n  %s\n", c.Short, line)
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Long)
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				writeBeside(&b, "  "+sub.Use, sub.Short)
			}
		}
	}
	for _, s := range sections {
		fmt.Fprintf(&b, "\n%s:\n%s", s.title, usages(s.flags))
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	fmt.Fprintf(&b, "\nSee %s(1).\n", "cryptenroll")
	return b.String()
}

// wordsOfOption is the annotation of an option with the words that it takes.
const wordsOfOption = "luksmith-words"

// usages lists options, each with what it is for beside it or, if it is long, below.
func usages(f *pflag.FlagSet) string {
	var b strings.Builder
	f.VisitAll(func(flag *pflag.Flag) {
		value, help := pflag.UnquoteUsage(flag)
		left := "  --" + flag.Name
		if flag.Shorthand != "" {
			left = "  -" + flag.Shorthand + ", --" + flag.Name
		}
		switch {
		case value != "" && flag.NoOptDefVal != "":
			left += "[=" + value + "]"
		case value != "":
			left += "=" + value
		}
		writeBeside(&b, left, help)
	})
	return b.String()
}

// helpColumns is how wide the help may be: that of the smallest terminal. helpIndent is
// where the explanations begin.
const (
	helpColumns = 80
	helpIndent  = 30
)

// writeBeside writes an explanation beside what it is for.
func writeBeside(b *strings.Builder, left, help string) {
	lines := cli.Wrap(help, helpColumns-helpIndent)
	if len(left) >= helpIndent-1 {
		fmt.Fprintln(b, left)
		left = ""
	}
	for _, line := range lines {
		fmt.Fprintf(b, "%-*s%s\n", helpIndent, left, line)
		left = ""
	}
}

// arguments refuses more or fewer than a subcommand takes.
func arguments(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		_, takes, _ := strings.Cut(c.Use, " ")
		return tokens.WithHint(usagef("%s takes %s", c.Name(), cmp.Or(takes, "no arguments")), "see how it is called: "+c.CommandPath()+" --help")
	}
}
