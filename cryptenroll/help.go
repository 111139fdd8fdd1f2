package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// command makes a subcommand whose options stand in sections. use is its name, if
// any, and its arguments.
func (a *app) command(use, short string, sections []section, run func(*cobra.Command, []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: run}
	c.Flags().SortFlags = false
	for _, s := range sections {
		c.Flags().AddFlagSet(s.flags)
	}
	// A function and not a template: cobra's templates would keep the linker from
	// leaving out what is not used.
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), a.helpText(c, use, sections)) })
	return c
}

func (a *app) helpText(c *cobra.Command, use string, sections []section) string {
	var b strings.Builder
	line := a.name + " [OPTIONS] " + use
	if c.HasParent() {
		_, arguments, _ := strings.Cut(use, " ")
		line = c.CommandPath() + " [OPTIONS] " + arguments
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
		fmt.Fprintf(&b, "\n%s:\n%s", s.title, s.flags.FlagUsages())
	}
	fmt.Fprintf(&b, "\nSee %s(1).\n", "cryptenroll")
	return b.String()
}
