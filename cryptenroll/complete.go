package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/internal/cli"
	"luksmith/tokens"
)

// completionLimit is how long a shell waits for devices that do not answer.
const completionLimit = 3 * time.Second

// offers is what a shell gets to choose from.
type offers struct{ app *app }

// completer offers values of an option or argument.
type completer = func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective)

// completes reports whether a shell asks for what may come next.
func completes(words []string) bool { return len(words) > 0 && strings.HasPrefix(words[0], "__") }

// register has the shell offer what options take: their words, keyslots of the
// volume that was named before, devices that are there.
func (o *offers) register(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if complete := o.of(f); complete != nil {
			// It fails only for an option that is not there.
			_ = c.RegisterFlagCompletionFunc(f.Name, complete)
		}
	})
}

// of is nil for an option whose values are files, or that anything may be.
func (o *offers) of(f *pflag.Flag) completer {
	words := f.Annotations[wordsOfOption]
	switch v := valueOf(f).(type) {
	case *slotFlag:
		return o.slot
	case *tokenFlag:
		if lister, ok := v.handler.(tokens.DeviceLister); ok && v.option.List {
			return o.device(v.option.Values, lister)
		}
		words = v.option.Values
	}
	switch {
	case f.Name == "wipe-slot":
		return o.slots(words)
	case len(words) > 0:
		return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	}
	return nil
}

// slot offers the keyslots of the volume.
func (o *offers) slot(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return o.slotNames(c.Context(), args), cobra.ShellCompDirectiveNoFileComp
}

// slots offers words and keyslots for a list with commas.
func (o *offers) slots(words []string) completer {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		done := begun[:strings.LastIndexByte(begun, ',')+1]
		given := strings.Split(done, ",")
		var list []cobra.Completion
		for _, choice := range append(slices.Clone(words), o.slotNames(c.Context(), args)...) {
			name, _, _ := strings.Cut(choice, "\t")
			if !slices.Contains(given, name) {
				list = append(list, done+choice)
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// slotNames are labels and numbers of the keyslots of the volume, each with what it
// is. A label that a shell would take apart stands beside the number only.
func (o *offers) slotNames(ctx context.Context, args []string) (list []cobra.Completion) {
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == "" })
	devices, err := o.app.devices(args)
	if err != nil {
		return nil
	}
	v, err := o.app.openVolume(ctx, devices[0], false)
	if err != nil {
		return nil
	}
	for _, s := range v.slots {
		if s.Label != "" && cli.ShellWords(s.Label) == s.Label && len(v.slotsCalled(s.Label)) == 1 {
			if _, err := strconv.Atoi(s.Label); err != nil {
				list = append(list, cobra.CompletionWithDesc(s.Label, fmt.Sprintf("keyslot %d, %s", s.ID, s.Kind)))
			}
		}
		list = append(list, cobra.CompletionWithDesc(strconv.Itoa(s.ID), oneLine(s.Kind+" "+s.Label)))
	}
	return list
}

// device offers words and the devices that are there, with what they call
// themselves. A path can be typed all the same.
func (o *offers) device(words []string, lister tokens.DeviceLister) completer {
	return func(c *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		list := slices.Clone(words)
		ctx, cancel := context.WithTimeout(c.Context(), completionLimit)
		defer cancel()
		if found, err := lister.Devices(ctx); err == nil {
			list = append(list, deviceNames(found)...)
		}
		if strings.HasPrefix(begun, "/") || strings.HasPrefix(begun, ".") {
			return list, cobra.ShellCompDirectiveDefault
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// deviceNames are the devices of a table, by URI or path.
func deviceNames(t *tokens.DeviceTable) (list []cobra.Completion) {
	at := max(0, slices.Index(t.Columns, "URI"))
	for _, row := range t.Rows {
		var about []string
		for i, name := range t.Columns {
			if i != at && slices.Contains([]string{"MANUFACTURER", "PRODUCT", "VENDOR", "TOKEN"}, name) {
				about = append(about, row[i])
			}
		}
		list = append(list, cobra.CompletionWithDesc(row[at], oneLine(strings.Join(about, " "))))
	}
	return list
}

// oneLine makes a text from a header or device harmless for a terminal.
func oneLine(text string) string { return cli.Escape(strings.TrimSpace(text)) }

// completeFile leaves it to the shell, which knows files.
func completeFile(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// label is for `label DEVICE SLOT NAME`: a file, a keyslot, anything.
func (o *offers) label(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return completeFile(c, args, begun)
	case 1:
		return o.slot(c, args[:1], begun)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completionScript mends what cobra writes for fish. It has the words of the command line
// evaluated once more without quotes, so that a name with a semicolon ended the command
// and began another one.
type completionScript struct{ io.Writer }

// Write gets the script in one piece.
func (s completionScript) Write(text []byte) (int, error) {
	const words, quoted = "set -l args (commandline -opc)", "set -l args (string escape -- (commandline -opc))"
	if _, err := s.Writer.Write(bytes.Replace(text, []byte(words), []byte(quoted), 1)); err != nil {
		return 0, err
	}
	return len(text), nil
}
