package askpass

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Source says where an answer came from.
type Source string

// The sources, in words for reports.
const (
	FromFile        Source = "file"
	FromEnvironment Source = "environment"
	FromCredential  Source = "credential"
	FromCache       Source = "kernel keyring"
	FromConsole     Source = "console"
	FromAgent       Source = "password agent"
	FromPlymouth    Source = "plymouth"
)

// Answer is what a question was answered with: usually one secret, several from
// credentials, caches and agents. Trying all of them is one attempt. Whoever gets
// an Answer wipes it.
type Answer struct {
	Secrets []secret.Secret
	Source  Source
	// Name is the path, variable or credential, where the source has one.
	Name string
}

// Wipe wipes all secrets.
func (a Answer) Wipe() { secret.WipeAll(a.Secrets) }

// single keeps the first secret and wipes the others.
func (a Answer) single() secret.Secret {
	if len(a.Secrets) == 0 {
		return secret.Secret{}
	}
	secret.WipeAll(a.Secrets[1:])
	return a.Secrets[0]
}

// splitList divides a list of passwords as systemd does: each one ends with a
// NUL or with the data. Data without any NUL is one password; no data is none.
func splitList(data []byte) []secret.Secret {
	var list []secret.Secret
	for len(data) > 0 {
		item, rest, _ := bytes.Cut(data, []byte{0})
		list = append(list, secret.Copy(item))
		data = rest
	}
	return list
}

// joinList is the reverse of splitList, without a NUL at the end.
func joinList(list []secret.Secret) secret.Secret {
	separator := secret.New(1)
	defer separator.Wipe()
	var parts []secret.Secret
	for i, s := range list {
		if i > 0 {
			parts = append(parts, separator)
		}
		parts = append(parts, s)
	}
	return secret.Join(parts...)
}

// cause is why ctx ended: an error for which errors.Is finds both the cause and
// the error of ctx.
func cause(ctx context.Context) error {
	why := context.Cause(ctx)
	if errors.Is(why, ctx.Err()) {
		return why
	}
	return errors.Join(ctx.Err(), why)
}

// noPrompt is [tokens.ErrNoPrompt] in words that fit the question.
type noPrompt struct {
	what string // the question
	why  error  // that no way to ask works; nil: there is none
	hint string
	// silent says that nobody may be asked.
	silent bool
}

func (e *noPrompt) Error() string {
	what := strings.TrimPrefix(e.what, "Please enter ")
	switch {
	case e.why != nil:
		return fmt.Sprintf("asking for the %s: %v", what, e.why)
	case e.silent:
		return "nobody may be asked for the " + what
	}
	return "there is no terminal to ask for the " + what
}

func (e *noPrompt) Is(target error) bool { return target == tokens.ErrNoPrompt }

func (e *noPrompt) Unwrap() error { return e.why }

// Hint names the sources that need nobody.
func (e *noPrompt) Hint() string { return e.hint }
