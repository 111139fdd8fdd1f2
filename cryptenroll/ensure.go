package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/internal/spec"
)

// ensureOptions are those of the ensure command.
type ensureOptions struct {
	file  string
	check bool
}

func ensureVerb(a *app) *cobra.Command {
	o := &ensureOptions{}
	s := newSection("Ensure")
	s.flags.StringVar(&o.file, "spec", "", "the keyslots that there shall be stand in `FILE`, - for standard input")
	s.flags.BoolVar(&a.options.dryRun, "dry-run", false, "say what would be done and change nothing")
	s.flags.BoolVar(&o.check, "check", false, "as --dry-run, with status 3 if something would be changed")
	known := tokenFlags{}
	return verb{use: "ensure [DEVICE…]", short: "Give volumes the keyslots that a file lists, and no more than it takes", most: mostVolumes,
		sections: []section{s, a.unlockSection(known), a.commonSection()},
		run: func(ctx context.Context, args []string) error {
			return (&ensureRun{ensureOptions: o, app: a}).run(ctx, args)
		}}.command(a)
}

// mostVolumes is how many one call takes.
const mostVolumes = 64

// errWouldChange is the outcome of --check that scripts branch on.
const errWouldChange spoken = "something would be changed"

// exitWouldChange is its status. It is also that of too little memory, which --check
// does not run into: it makes no key.
const exitWouldChange = 3

var ensureExits = []cli.Exit{{Err: errWouldChange, Status: exitWouldChange}}

// ensureRun is one run of ensure.
type ensureRun struct {
	*ensureOptions
	app  *app
	spec *spec.Spec
}

// planOnly says that nothing is to be written.
func (r *ensureRun) planOnly() bool { return r.check || r.app.options.dryRun }

// run brings one volume after the other into the state that the spec describes. A
// volume that fails leaves the others to be tried.
func (r *ensureRun) run(ctx context.Context, args []string) error {
	devices, err := r.read(args)
	if err != nil {
		return err
	}
	view := ensureView{Planned: r.planOnly(), Volumes: []volumeView{}}
	var errs error
	for _, device := range devices {
		e, err := r.ensure(ctx, device)
		if ctx.Err() != nil {
			return err
		}
		errs = errors.Join(errs, err)
		view.add(e, device, err)
	}
	view.Error = errorView(errs)
	if err := view.print(r.app); err != nil {
		return errors.Join(errs, err)
	}
	if errs == nil && r.check && view.Changed {
		return errWouldChange
	}
	return errs
}

// read reads the spec, judges all of it, and says which volumes are meant.
func (r *ensureRun) read(args []string) (devices []string, err error) {
	o := &r.app.options
	switch {
	case r.file == "":
		return nil, usagef("ensure needs --spec=FILE")
	case o.conflictError != nil:
		return nil, o.conflictError
	case o.header != "" && len(args) > 1:
		return nil, usagef("--header= is for one volume at a time")
	}
	if r.spec, err = spec.Read(r.file, r.app.types()); err != nil {
		return nil, err
	}
	if at := r.spec.Compat; at.Value != "" {
		if _, err := parseCompat(at.Value, r.app.root); err != nil {
			return nil, at.Wrap(err)
		}
		o.compat = at.Value
	}
	for i := range r.spec.Keyslots {
		if _, err := newEntry(&r.spec.Keyslots[i], r.app); err != nil {
			return nil, err
		}
	}
	if len(args) == 0 && !o.image.given() {
		for _, d := range r.spec.Devices {
			args = append(args, d.Value)
		}
	}
	return r.app.devices(args)
}

// ensuring is the work on one volume.
type ensuring struct {
	*ensureRun
	volume  *volume
	items   []*item
	wipes   []*item // of keyslots that are not wanted
	system  *systemRun
	opened  *opened
	changed bool
	// proven are the keyslots that gave the volume key in this call.
	proven []proof
}

// ensure is the run on one volume. The result is nil if the volume could not be read.
func (r *ensureRun) ensure(ctx context.Context, device string) (*ensuring, error) {
	v, err := r.app.openVolume(ctx, device, true)
	if err != nil {
		return nil, err
	}
	e := &ensuring{ensureRun: r, volume: v, system: &systemRun{ensureRun: r, volume: v}}
	defer e.close()
	if skipped, err := e.requirement(ctx, r.spec.Require); skipped || err != nil {
		return e, err
	}
	if err := e.survey(ctx); err != nil {
		return e, err
	}
	if r.planOnly() {
		return e, e.refusals()
	}
	return e, e.carryOut(ctx)
}

// close forgets the volume key.
func (e *ensuring) close() {
	if e.opened != nil {
		e.opened.wipe()
	}
}

// reload reads the header again, after a change.
func (e *ensuring) reload(ctx context.Context) error {
	h, err := e.volume.device.Header(ctx)
	if err != nil {
		return err
	}
	v := *e.volume
	v.header, v.slots = h, slotsOf(e.app.unlocking, h)
	e.volume = &v
	return nil
}

// refusals are the errors of what cannot be done, as far as a plan knows.
func (e *ensuring) refusals() (errs error) {
	for _, it := range append(e.items, e.wipes...) {
		if it.err != nil {
			errs = errors.Join(errs, it.err)
		}
	}
	return errs
}

// below is a path of the system that is run on.
func (r *ensureRun) below(path string) string { return filepath.Join(cmp.Or(r.app.root, "/"), path) }
