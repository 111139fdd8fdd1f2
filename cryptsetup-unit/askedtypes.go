package main

import (
	"slices"

	"luksmith/tokens"
)

// askedTypes are the token types with what a line of crypttab says about them.
type askedTypes struct {
	all     tokens.Set       // with their options
	named   []string         // names of those that the line asks for
	refused map[string]error // what a type said to its options, by name
}

// newAskedTypes hands the options of the token types to their handlers, and notes the
// types that crypttab asks for and those that refuse what it says.
func newAskedTypes(all tokens.Set, j *job) askedTypes {
	types := askedTypes{all: all, refused: map[string]error{}}
	for _, h := range all {
		if err := j.configure(h); err != nil {
			types.refused[h.Name()] = err
		}
		if slices.Contains(j.options.Types, h.Name()) {
			types.named = append(types.named, h.Name())
		}
	}
	return types
}

// areNamed reports whether crypttab asks for any type; then no other one is used.
func (a *askedTypes) areNamed() bool { return len(a.named) > 0 }

func (a *askedTypes) asksFor(h tokens.Handler) bool { return slices.Contains(a.named, h.Name()) }

// isFactor reports whether a type that crypttab names may be there for a combination
// that it names as well.
func (a *askedTypes) isFactor(name string) bool {
	return slices.ContainsFunc(a.all, func(h tokens.Handler) bool {
		c, ok := h.(tokens.Combiner)
		return ok && a.asksFor(h) && c.UnlocksWith(name)
	})
}

// takeKeyFile reports whether the key file is certainly for a type that was asked for: a
// salt is tried as passphrase of no keyslot.
func (a *askedTypes) takeKeyFile() bool {
	return slices.ContainsFunc(a.all, func(h tokens.Handler) bool {
		user, ok := h.(tokens.KeyFileUser)
		if !ok || !a.asksFor(h) || a.refused[h.Name()] != nil {
			return false
		}
		use := user.KeyFile()
		return use != nil && use.Alone
	})
}
