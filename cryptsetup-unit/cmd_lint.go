package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"luksmith/crypttab"
	"luksmith/luks2"
)

// lintVerb is crypttab lint [FILE].
func lintVerb() ([]flag, func(*app, []string) error) {
	return nil, func(a *app, args []string) error {
		path := ""
		if len(args) > 0 {
			path = args[0]
		}
		return a.lint(a.crypttabPath(path))
	}
}

// headerWait bounds the look at one header: lint must not hang on a dead disk.
const headerWait = 5 * time.Second

// lint prints what is wrong with a crypttab. The exit status is 1 if a volume will
// not be attached as written.
func (a *app) lint(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("reading crypttab: %w", err) // only at boot is a missing one fine
	}
	file, err := crypttab.Read(path)
	if err != nil {
		return err
	}
	resolve := a.newDevices().resolve
	findings := crypttab.Lint(file, &crypttab.LintOptions{Grammar: a.grammar(), Facts: func(e *crypttab.Entry, o *crypttab.Options) (*crypttab.VolumeFacts, error) {
		return headerFacts(a.ctx, resolve, e, o)
	}})
	bad := 0
	for _, f := range findings {
		a.out.Linef("%s", f.Text())
		if f.Level == crypttab.Bad {
			bad++
		}
	}
	if bad > 0 {
		return lintError(bad)
	}
	if len(findings) == 0 {
		volumes := "volumes"
		if len(file.Entries) == 1 {
			volumes = "volume"
		}
		a.msg.Err.Linef("%s: %d %s, nothing to complain about", path, len(file.Entries), volumes)
	}
	return nil
}

// lintError says how many findings are errors.
type lintError int

func (n lintError) Error() string {
	if n == 1 {
		return "1 error was found"
	}
	return fmt.Sprintf("%d errors were found", int(n))
}

// headerFacts reads the header of a volume if its device is there.
func headerFacts(ctx context.Context, resolve resolveFunc, e *crypttab.Entry, o *crypttab.Options) (*crypttab.VolumeFacts, error) {
	device, err := resolve(e.Source)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, headerWait)
	defer stop()
	header := o.HeaderLocation()
	if header.Device != nil {
		return nil, fmt.Errorf("it is a file on %s", header.Device)
	}
	d, err := luks2.Open(device, &luks2.OpenOptions{Header: header.Path, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	h, err := d.Header(ctx)
	if errors.Is(err, luks2.ErrLUKS1) {
		return &crypttab.VolumeFacts{LUKS: 1}, nil
	}
	if err != nil {
		return nil, err
	}
	f := &crypttab.VolumeFacts{LUKS: 2}
	for _, k := range h.Keyslots {
		f.Keyslots = append(f.Keyslots, k.ID)
	}
	for _, t := range h.Tokens {
		f.TokenTypes = append(f.TokenTypes, t.Type)
	}
	return f, nil
}
