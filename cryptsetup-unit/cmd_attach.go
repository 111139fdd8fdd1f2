package main

import (
	"fmt"
	"os"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/tokens"
)

// attachVerb is attach VOLUME DEVICE [KEY-FILE] [OPTIONS], with the arguments of
// systemd-cryptsetup, and attach VOLUME for a line of crypttab.
func attachVerb() ([]flag, func(*app, []string) error) {
	return nil, func(a *app, args []string) error {
		e, err := a.entry(args)
		if err != nil {
			return err
		}
		j, as, err := a.attacherFor(e)
		if err != nil {
			return err
		}
		defer as.close()
		return as.attach(a.ctx, j)
	}
}

// attacherFor is what attaches one volume alone. The caller closes it.
func (a *app) attacherFor(e crypttab.Entry) (*job, *attacher, error) {
	j, err := a.newJob(e)
	if err != nil {
		return nil, nil, err
	}
	as, err := a.newAttacher([]*job{j})
	return j, as, err
}

// entry is the volume that the arguments mean.
func (a *app) entry(args []string) (crypttab.Entry, error) {
	if len(args) != 1 || !a.manner.takesNames() {
		return entryOfArguments(args)
	}
	path := a.crypttabPath("")
	entries, err := a.entries(path, inInitrd())
	if err != nil {
		return crypttab.Entry{}, err
	}
	name := crypttab.Unescape(args[0]) // %I of a unit has the name as crypttab spells it
	for _, e := range entries {
		if e.Name == name {
			return e, nil
		}
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	err = cli.Unknown(fmt.Sprintf("neither %s nor the kernel command line has a volume %q", path, name), name, "", names)
	return crypttab.Entry{}, tokens.WithHint(err, "all volumes: cryptsetup-unit status")
}

// inInitrd is systemd's in_initrd.
func inInitrd() bool {
	if v, err := crypttab.ParseBool(os.Getenv("SYSTEMD_IN_INITRD")); err == nil {
		return v
	}
	_, err := os.Stat("/etc/initrd-release")
	return err == nil
}

// newJob is newJob with the warnings printed. With an error there is a job only if
// its options could be read.
func (a *app) newJob(e crypttab.Entry) (*job, error) {
	j, warnings, err := newJob(e, a.grammar())
	for _, w := range warnings {
		a.msg.Warning(w)
	}
	if err != nil {
		return j, fmt.Errorf("attaching %s: %w", e.Name, err)
	}
	return j, nil
}
