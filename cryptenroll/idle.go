package main

import (
	"strings"

	"github.com/spf13/pflag"

	"luksmith/tokens"
)

// purpose is why somebody gives an option that only has a meaning when something is
// enrolled, or changed at all.
type purpose string

const (
	purposeEnroll purpose = "enrol"
	purposeChange purpose = "enrol or wipe"
)

// meant are options with a purpose.
type meant struct {
	flags *pflag.FlagSet
	purpose
}

// purposeOf is "" for an option that has a meaning in any call.
func (o *options) purposeOf(f *pflag.Flag) purpose {
	for _, m := range o.meant {
		if m.flags.Lookup(f.Name) != nil {
			return m.purpose
		}
	}
	return ""
}

// refuseIdle refuses options that change nothing about what the call does, so that
// nobody takes a list for an enrolment because a word is missing.
func (o *options) refuseIdle(given *pflag.FlagSet) error {
	var idle error
	given.Visit(func(f *pflag.Flag) {
		if idle == nil && o.isIdle(f) {
			idle = usagef("%s needs something to %s%s", spelled(f), o.purposeOf(f), missingOption(f))
		}
	})
	return idle
}

// isIdle reports whether an option has no effect in this call.
func (o *options) isIdle(f *pflag.Flag) bool {
	what := o.purposeOf(f)
	if what == "" {
		return false
	}
	enrolls := o.password || o.changePIN || o.enrollWith != nil
	if !enrolls && len(o.wipe) == 0 {
		return true
	}
	if what != purposeEnroll {
		return false
	}
	if t, ok := valueOf(f).(*tokenFlag); ok {
		return t.also == nil && !o.asks(t.handler)
	}
	return !enrolls
}

// asks reports whether a type takes part in the enrolment.
func (o *options) asks(h tokens.Handler) bool {
	if o.enrollWith == nil {
		return o.changePIN && h.Name() == "tpm2"
	}
	c, combines := o.enrollWith.(tokens.Combiner)
	return tokens.Handler(o.enrollWith) == h || combines && c.EnrollsWith(h.Name())
}

// spelled is an option as it stands on the command line.
func spelled(f *pflag.Flag) string {
	if f.NoOptDefVal != "" {
		return "--" + f.Name
	}
	return "--" + f.Name + "="
}

// missingOption names the options that would enrol what a parameter is for.
func missingOption(f *pflag.Flag) string {
	t, ok := valueOf(f).(*tokenFlag)
	if !ok {
		return ""
	}
	var names []string
	for _, opt := range t.handler.Options() {
		if opt.Place&tokens.Enrolling != 0 && opt.Action == tokens.SelectEnroll {
			name := "--" + opt.Name
			if opt.Arg != "" {
				name += "="
			}
			names = append(names, name)
		}
	}
	return ": add " + strings.Join(names, " or ")
}
