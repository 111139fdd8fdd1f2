package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/internal/test/testenv"
	"luksmith/tokens/all"
)

// manual is the text of the manual without the marks that keep options apart.
func manual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/cryptenroll.1")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestManualNamesEveryOption walks through all commands.
func TestManualNamesEveryOption(t *testing.T) {
	text := manual(t)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if name := strings.TrimPrefix(c.CommandPath(), "cryptenroll "); c.HasParent() && c.IsAvailableCommand() && (!strings.Contains(text, "\n.Cm "+name) || !strings.Contains(text, "\n.It Cm "+name)) {
			t.Errorf("the manual has no line .Cm %s in its synopsis or no item .It Cm %[1]s", name)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, "Fl Fl "+f.Name+" ") && !strings.Contains(text, "Fl Fl "+f.Name+"\n") {
				t.Errorf("the manual does not name --%s of %s", f.Name, c.CommandPath())
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newApp("cryptenroll", all.New).rootCommand([]string{"help"}))
}

func TestManualIsClean(t *testing.T) {
	testenv.Need(t, "mandoc")
	testenv.Run(t, "mandoc", "-T", "lint", "-W", "warning", "../docs/cryptenroll.1")
}

// TestEverySystemdOptionIsKnown has the long options of systemd-cryptenroll 262.
// The first-boot wizard's are left out, as the manual says.
func TestEverySystemdOptionIsKnown(t *testing.T) {
	root := newApp("cryptenroll", all.New).rootCommand(nil)
	wizard := strings.Fields("firstboot prompt-suppress chrome mute-console")
	for name := range strings.FieldsSeq(systemdOptions) {
		if root.Flags().Lookup(name) == nil && !slices.Contains(wizard, name) {
			t.Errorf("no option --%s", name)
		}
	}
}
