package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	completeValues(c)
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
				fmt.Fprintf(&b, "  %-38s %s\n", c.CommandPath()+" "+sub.Use, sub.Short)
			}
		}
	}
	for _, s := range sections {
		fmt.Fprintf(&b, "\n%s:\n%s", s.title, usages(s.flags))
	}
	fmt.Fprintf(&b, "\nSee %s(1).\n", "cryptenroll")
	return b.String()
}

// completeValues has the shell offer the words that an option takes.
func completeValues(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		words := f.Annotations[wordsOfOption]
		if t, ok := f.Value.(*tokenFlag); ok {
			words = t.option.Values
		}
		if len(words) > 0 {
			// It fails only for an option that is not there.
			_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
		}
	})
}

// wordsOfOption is the annotation of an option with the words that it takes.
const wordsOfOption = "luksmith-words"

// usages is pflag's list of options without the value that an option has when it is
// given none, which is an internal mark, and without "[=true|false]" for switches.
func usages(f *pflag.FlagSet) string {
	shown := pflag.NewFlagSet("", pflag.ContinueOnError)
	shown.SortFlags = false
	var optional []string
	f.VisitAll(func(flag *pflag.Flag) {
		plain := *flag
		plain.NoOptDefVal, plain.Value = "", struct{ pflag.Value }{flag.Value}
		if plain.DefValue == "[]" || plain.DefValue == "-1" { // these stand for "not given"
			plain.DefValue = ""
		}
		shown.AddFlag(&plain)
		if name, _ := pflag.UnquoteUsage(&plain); name != "" && flag.NoOptDefVal != "" {
			optional = append(optional, "--"+flag.Name+" "+name+"  ", "--"+flag.Name+"[="+name+"]")
		}
	})
	return strings.NewReplacer(optional...).Replace(shown.FlagUsages())
}

// arguments refuses more or fewer than a subcommand takes.
func arguments(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		return tokens.WithHint(usagef("%d arguments", len(args)), c.Parent().CommandPath()+" "+c.Use)
	}
}
