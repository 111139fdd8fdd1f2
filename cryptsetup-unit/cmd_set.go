package main

import (
	"context"
	"errors"
	"fmt"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/luks2"
)

// setOptions are those of crypttab set.
type setOptions struct {
	file, name, key string
	dryRun          bool
	json            cli.JSONMode
}

// setVerb is crypttab set DEVICE [OPTION...].
func setVerb() ([]flag, func(*app, []string) error) {
	o := &setOptions{}
	text := func(dst *string) func(string) error { return func(value string) error { *dst = value; return nil } }
	flags := []flag{{"file", "FILE", "change this crypttab", text(&o.file)},
		{"name", "NAME", "mapping name for a new line", text(&o.name)},
		{"key-file", "PATH", "set the third field", text(&o.key)},
		{"dry-run", "", "print the line and write nothing", func(string) error { o.dryRun = true; return nil }},
		{"json", o.json.Type(), "print one JSON document", o.json.Set}}
	return flags, func(a *app, args []string) error { return a.setCrypttab(args[0], args[1:], o) }
}

// setCrypttab gives the line of a volume further options.
func (a *app) setCrypttab(device string, options []string, o *setOptions) error {
	resolve := a.newDevices().resolve
	ref := crypttab.LiteralDeviceRef(device)
	if err := ref.Check(); err != nil && ref.Tag != crypttab.TagPath {
		return err
	}
	node, err := resolve(ref)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	uuid, err := volumeUUID(a.ctx, node)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	c := &crypttab.Change{Name: o.name, Device: "UUID=" + uuid, Key: o.key, Grammar: a.grammar(),
		Match: func(e *crypttab.Entry) bool { return e.IsAbout(uuid, node) || leadsTo(resolve, e, node) }}
	for _, list := range options { // also as they stand in crypttab, with commas
		c.Options = append(c.Options, crypttab.SplitOptions(list)...)
	}
	if c.Name == "" {
		c.Name = "luks-" + uuid
	}
	path := a.crypttabPath(o.file)
	change := c.Write
	if o.dryRun {
		change = c.Preview
	}
	done, err := change(path)
	if err != nil {
		return err
	}
	return a.reportSet(done, o)
}

// leadsTo reports whether the entry's device is a node, also without udev's links.
func leadsTo(resolve resolveFunc, e *crypttab.Entry, node string) bool {
	if e.Source.Check() != nil {
		return false
	}
	found, err := resolve(e.Source)
	return err == nil && canonical(found) == canonical(node)
}

// reportSet prints the line as it was and as it is.
func (a *app) reportSet(done *crypttab.Changed, o *setOptions) error {
	if o.json.On() {
		return a.out.JSON(o.json, done)
	}
	line := func(what, text string) { a.out.Pasted(fmt.Sprintf("%s:%d: %s: %s", done.File, done.Line, what, text)) }
	switch {
	case done.Old == done.New:
		line("nothing to change", done.New)
		return nil
	case done.Old != "":
		line("was", done.Old)
	}
	line("now", done.New)
	if o.dryRun {
		a.out.Linef("Nothing was written.")
	} else if done.Copy != "" {
		a.out.Linef("The file as it was is in %s.", done.Copy)
	}
	return nil
}

// volumeUUID reads the UUID of a volume's header, of either version.
func volumeUUID(ctx context.Context, node string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, headerWait)
	defer stop()
	d, err := luks2.Open(node, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer d.Close()
	h, err := d.Header(ctx)
	if errors.Is(err, luks2.ErrLUKS1) {
		v, err := openLUKS1(d)
		if err != nil {
			return "", err
		}
		return v.uuid, nil
	}
	if err != nil {
		return "", err
	}
	return h.UUID, nil
}
