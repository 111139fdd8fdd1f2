package tokens

import (
	"slices"

	"luksmith/crypttab"
)

// Place is where an option may stand. Values can be combined.
type Place uint8

const (
	// Enrolling is cryptenroll's command line, for the token to be made.
	Enrolling Place = 1 << iota
	// Unlocking is cryptenroll's command line, for unlocking the volume first.
	Unlocking
	// Crypttab is the fourth field of /etc/crypttab.
	Crypttab
)

// Action is what giving an option asks the command to do, besides setting a
// parameter.
type Action uint8

const (
	// Parameter only sets a field.
	Parameter Action = iota
	// SelectEnroll asks for an enrolment with this handler (--tpm2-device=).
	SelectEnroll
	// SelectUnlock asks to unlock with this handler: --unlock-tpm2-device=, and
	// tpm2-device= in crypttab.
	SelectUnlock
)

// Option is one long option or crypttab word. A table of them feeds command line,
// crypttab, help, completion and the test that the manuals name every option.
type Option struct {
	Name   string // without dashes: "tpm2-pcrs"
	Arg    string // placeholder of the value: "PCRS"; empty for a switch without value
	Help   string // one line, no full stop
	Place  Place
	Action Action
	// List says that the value "list" makes the command print the handler's
	// devices instead.
	List bool
	// Since is the first systemd version that has the option, 0 for ours.
	Since int
	// Values are the words that completion offers; may be empty.
	Values []string
	// Set parses a value and stores it in the handler. Errors name the value and
	// what is allowed, not the option: the caller knows where it stood. In crypttab a
	// value that systemd takes and the handler cannot use gives a
	// [crypttab.UnusableError]: see [Unusable].
	Set func(value string) error

	// The others are about crypttab.

	// Fatal says that a bad value makes systemd refuse to attach; else it warns and
	// ignores the option.
	Fatal bool
	// NeedsKeyFile says that a value other than auto replaces the token in the
	// header, and that the key file has the rest.
	NeedsKeyFile bool
	// Needs is the option without which this one has no effect; may be empty.
	Needs string
	// Uncached says that the type's PINs never go into the kernel keyring.
	Uncached bool
	// Joins stands between the values of an option that takes several, which are added
	// to a line of crypttab instead of replacing those there. 0: one value.
	Joins byte
}

// Set is an ordered collection of handlers, cheapest mechanism first.
type Set []Handler

// ByType returns the handler of a token type, or nil.
func (s Set) ByType(tokenType string) Handler {
	i := slices.IndexFunc(s, func(h Handler) bool { return h.Type() == tokenType })
	if i < 0 {
		return nil
	}
	return s[i]
}

// ByName returns the handler with that short name, or nil.
func (s Set) ByName(name string) Handler {
	i := slices.IndexFunc(s, func(h Handler) bool { return h.Name() == name })
	if i < 0 {
		return nil
	}
	return s[i]
}

// Grammar is the table of all options that may stand in crypttab: those of
// [crypttab.Table] and of the handlers. Checking a value sets it in the handler, so the
// set is to be a new one, used for nothing else.
func (s Set) Grammar() crypttab.Grammar {
	g := slices.Clone(crypttab.Table)
	for _, h := range s {
		for _, o := range h.Options() {
			if o.Place&Crypttab != 0 {
				g = append(g, o.row(h))
			}
		}
	}
	return g
}

// row is the option as the parser of crypttab wants it.
func (o *Option) row(h Handler) crypttab.Option {
	origin := crypttab.Systemd
	if o.Since == 0 {
		origin = crypttab.Luksmith
	}
	return crypttab.Option{Name: o.Name, Arg: o.Arg, Origin: origin, Since: o.Since, Use: crypttab.ForTokens, Fatal: o.Fatal, Help: o.Help,
		Type: h.Name(), TokenType: h.Type(), Selects: o.Action == SelectUnlock,
		NeedsKeyFile: o.NeedsKeyFile, Needs: o.Needs, Uncached: o.Uncached, Joins: o.Joins, Check: o.Set}
}
