package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootrecord"
)

// followOptions are those of the follow command.
type followOptions struct {
	esp, boot string
	off, hook bool
	// signatureFile gets the signatures, for systemd.
	signatureFile string
	// acceptChanged takes entries as they are that changed while the system did not run.
	acceptChanged bool
}

func followVerb(a *app) *cobra.Command {
	o := &followOptions{}
	known := tokenFlags{}
	s := newSection("Follow")
	f := s.flags
	f.StringVar(&o.esp, "esp-path", "", "the EFI system partition is mounted at `FOLDER` (default: /efi, /boot/efi or /boot)")
	f.StringVar(&o.boot, "boot-path", "", "the extended boot partition, or the file system of GRUB, is mounted at `FOLDER`")
	a.addTPM2Parameters(f, known, "seal to this TPM", "tpm2-pcrs", "tpm2-with-pin")
	a.sameTPM(known)
	f.StringVar(&a.options.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262")
	f.StringVar(&a.options.backup, "backup", "", "first copy the header to `FILE`")
	f.StringVar(&o.signatureFile, "signature-file", "", "write the signatures for tokens with a PIN or the latch to `FILE` too, for systemd")
	f.BoolVar(&o.acceptChanged, "accept-changed", false, "seal also for entries that changed while this system did not run")
	f.BoolVar(&o.off, "off", false, "do not follow updates any more; keyslots stay")
	f.BoolVar(&o.hook, "hook", false, "as the hooks of packages call it: ask nobody, say one line, never fail")
	f.BoolVar(&a.options.dryRun, "dry-run", false, "say what would be done and change nothing")
	return verb{use: "follow [DEVICE…]", short: "Have TPM2 keyslots open in the next boots too, before an update is booted",
		sections: []section{s, a.unlockSection(known), a.commonSection()}, most: maxFollowed,
		run: func(ctx context.Context, args []string) error {
			return (&following{app: a, followOptions: o}).run(ctx, args)
		}}.command(a)
}

// maxFollowed bounds the volumes of one call.
const maxFollowed = 64

const (
	errSomeUncovered spoken = "boot entries without a key"
	errAllUncovered  spoken = "no boot entry has a key"
)

var followExits = []cli.Exit{{Err: errSomeUncovered, Status: cli.ExitWarning}, {Err: errAllUncovered, Status: cli.ExitProblem}}

// following is one run of follow.
type following struct {
	*followOptions
	app  *app
	list *bootrecord.Following // what is followed; nil before the first call
	// machine is the ID of the system that runs.
	machine string
	// missing is why volumes of the list were left out.
	missing error
}

func (f *following) run(ctx context.Context, args []string) (err error) {
	a := f.app
	if a.options.image.given() {
		return usagef("follow is about the next boots of this machine; a disk image is not part of it")
	}
	for _, path := range []*string{&f.signatureFile, &f.esp, &f.boot} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if f.hook {
		return f.runHook(ctx, args)
	}
	unlock, err := f.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	volumes, err := f.volumes(ctx, args)
	if err != nil {
		return err
	}
	if a.options.backup != "" && len(volumes) > 1 {
		return usagef("--backup= is for one volume at a time")
	}
	if f.off {
		return f.turnOff(volumes)
	}
	plans, failed := f.work(ctx, volumes)
	if plans == nil {
		return failed
	}
	if err := errors.Join(failed, f.missing, f.report(plans)); err != nil {
		return err
	}
	return f.outcome(plans)
}

// begin reads what is followed. Calls that change something wait for one another.
func (f *following) begin(ctx context.Context) (unlock func(), err error) {
	unlock = func() {}
	if !f.app.options.dryRun {
		ctx, stop := context.WithTimeout(ctx, lockLimit)
		defer stop()
		if unlock, err = bootrecord.LockFollowing(ctx, f.app.root); err != nil {
			return nil, err
		}
	}
	if f.list, err = bootrecord.ReadFollowing(f.app.root); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// lockLimit is longer than a hook takes.
const lockLimit = hookLimit + 5*time.Second

// work plans, and does it unless it is only to be said. Without plans nothing was
// done.
func (f *following) work(ctx context.Context, volumes []*volume) ([]*followPlan, error) {
	l, err := f.look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f.machine = l.Host.MachineID
	if err := f.compare(l); err != nil {
		return nil, err
	}
	plans, failed := f.planAll(ctx, volumes, l)
	if len(plans) == 0 {
		return nil, failed
	}
	for _, p := range plans {
		if f.app.options.dryRun {
			failed = errors.Join(failed, p.countSignatures())
			continue
		}
		p.failed = f.carryOut(ctx, p)
		failed = errors.Join(failed, p.failed)
	}
	if f.app.options.dryRun {
		return plans, failed
	}
	return plans, errors.Join(failed, f.writeSignatures(ctx, plans), f.remember(plans))
}

// planAll leaves out the volumes that cannot be planned for: they do not keep the others
// from being followed.
func (f *following) planAll(ctx context.Context, volumes []*volume, l *outlook) (plans []*followPlan, failed error) {
	for _, v := range volumes {
		p, err := f.plan(ctx, v, l)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", v.path, err))
			continue
		}
		plans = append(plans, p)
	}
	return plans, failed
}

// volumes opens those that are named, or followed, or else the one below /var.
func (f *following) volumes(ctx context.Context, args []string) ([]*volume, error) {
	a := f.app
	if len(args) == 0 && f.list != nil && len(f.list.Volumes) > 0 {
		return f.followed(ctx)
	}
	paths, err := a.devices(args)
	if err != nil {
		return nil, err
	}
	var list []*volume
	for _, path := range paths {
		v, err := a.openVolume(ctx, path, !f.off)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(was *volume) bool { return was.header.UUID == v.header.UUID }) {
			list = append(list, v)
		}
	}
	return list, nil
}

// followed opens the volumes of the list. Those that are not there do not keep the
// others from being followed.
func (f *following) followed(ctx context.Context) (list []*volume, err error) {
	for _, w := range f.list.Volumes {
		v, err := f.find(ctx, &w)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			f.missing = errors.Join(f.missing, err)
			continue
		}
		list = append(list, v)
	}
	if list == nil {
		return nil, f.missing
	}
	return list, nil
}

// find opens a volume of the list. One that has another name now is found by its UUID.
func (f *following) find(ctx context.Context, w *bootrecord.Followed) (*volume, error) {
	v, err := f.app.openVolume(ctx, w.Device, !f.off)
	if err == nil && v.header.UUID == w.UUID {
		return v, nil
	}
	link := filepath.Join(f.app.root, "dev/disk/by-uuid", w.UUID)
	if _, missing := os.Stat(link); missing == nil && luks2.ValidUUID(w.UUID) {
		return f.app.openVolume(ctx, link, !f.off)
	}
	return nil, tokens.WithHint(errors.Join(fmt.Errorf("%w: the volume %s, which is followed, is not %s", cli.ErrWrongDevice, w.UUID, w.Device), err),
		"name the volumes that are to be followed, or take it off the list: cryptenroll follow --off "+w.Device)
}

// known is what was kept about a volume at an earlier call.
func (f *following) known(uuid string) (bootrecord.Followed, bool) {
	if f.list != nil {
		for _, w := range f.list.Volumes {
			if w.UUID == uuid {
				return w, true
			}
		}
	}
	return bootrecord.Followed{}, false
}

// remember keeps which volumes are followed and with which PCRs: from now on calls
// need no argument, and the hooks of the packages work.
func (f *following) remember(plans []*followPlan) error {
	changed := false
	for _, p := range plans {
		w := bootrecord.Followed{UUID: p.header.UUID, Device: p.path, PCRs: p.keptPCRs()}
		was, ok := f.known(w.UUID)
		if w.Signed = was.Signed; len(p.signed) > 0 {
			w.Signed = numbers(p.signed[0].pcrs)
		}
		if w.Compat = was.Compat; namesCompat(f.app) {
			w.Compat = p.compat
		}
		if p.failed != nil || ok && (f.hook || was.PCRs == w.PCRs && was.Signed == w.Signed && was.Compat == w.Compat) {
			continue
		}
		if path, err := filepath.Abs(p.path); err == nil {
			w.Device = path
		}
		if f.list == nil {
			f.list = &bootrecord.Following{Since: time.Now().UTC()}
			f.app.msg.Err.Linef("Updates are followed from now on. cryptenroll follow --off ends it.")
		}
		f.list.Add(w)
		changed = true
	}
	if f.list == nil || !f.rememberMachine() && !changed {
		return nil
	}
	return f.list.Write(f.app.root)
}

// rememberMachine keeps what is the same for all volumes, and reports whether that is
// something new.
func (f *following) rememberMachine() (changed bool) {
	for _, x := range []struct {
		said string
		kept *string
	}{{f.signatureFile, &f.list.SignatureFile}, {f.esp, &f.list.ESP}, {f.boot, &f.list.Boot}} {
		if x.said != "" && *x.kept != x.said {
			*x.kept, changed = x.said, true
		}
	}
	return f.list.AddMachine(f.machine) || changed
}

// turnOff takes volumes off the list.
func (f *following) turnOff(volumes []*volume) error {
	if f.list == nil {
		f.app.msg.Err.Linef("No volume is followed.")
		return nil
	}
	f.list.Volumes = slices.DeleteFunc(f.list.Volumes, func(w bootrecord.Followed) bool {
		return slices.ContainsFunc(volumes, func(v *volume) bool { return v.header.UUID == w.UUID })
	})
	if f.app.options.dryRun {
		return nil
	}
	return f.list.Write(f.app.root)
}

// outcome is the status of the call: whether some or all of the entries will ask for a
// passphrase.
func (f *following) outcome(plans []*followPlan) error {
	covered, uncovered := 0, 0
	for _, p := range plans {
		some := 0
		for _, s := range p.states {
			switch {
			case s.foreign:
			case s.covered() || f.app.options.dryRun && s.wanted():
				some++
			default:
				uncovered++
			}
		}
		if some > 0 {
			covered++
		}
	}
	switch {
	case covered < len(plans):
		return errAllUncovered
	case uncovered == 0:
		return nil
	}
	return errSomeUncovered
}
