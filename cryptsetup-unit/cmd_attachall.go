package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/crypttab"
)

// attachAll is attach-all: what systemd's generator and its units do together.
type attachAll struct {
	crypttab  string // path; "" is the usual one
	initrd    bool
	automatic bool           // only what needs no passphrase, before another program asks
	limit     *time.Duration // for what is not there; nil without --limit=
	device    string         // only volumes on this one
	discover  bool           // what the partition table says, too
}

func attachAllVerb() ([]flag, func(*app, []string) error) {
	c := &attachAll{}
	flags := []flag{
		{"crypttab", "FILE", "read this file instead of /etc/crypttab", func(v string) error { c.crypttab = v; return nil }},
		{"initrd", "", "obey rd.luks.* too, and refuse a crypttab that others than root can write", func(string) error { c.initrd = true; return nil }},
		{"only-automatic", "", "ask for no passphrase and leave what stays closed to another program", func(string) error { c.automatic = true; return nil }},
		{"limit", "TIME", "wait no longer than TIME for devices that are not there", c.setLimit},
		{"discover", "", "attach root, usr, home, srv, var and swap as the boot disk's partition table marks them", func(string) error { c.discover = true; return nil }},
		{"device", "DEVICE", "only volumes on this block device", func(v string) error { c.device = v; return nil }},
	}
	return flags, c.run
}

func (c *attachAll) setLimit(v string) error {
	d, err := crypttab.ParseTimeSpan(v)
	c.limit = &d
	return err
}

// crypttabPath is where crypttab lies.
func (a *app) crypttabPath(given string) string {
	if given != "" {
		return given
	}
	if env := os.Getenv("SYSTEMD_CRYPTTAB"); env != "" {
		return env
	}
	return filepath.Join(a.root, crypttab.DefaultPath)
}

// run attaches the volumes that are not noauto, or those with the given names, all at
// the same time.
func (c *attachAll) run(a *app, names []string) error {
	if c.crypttab != "" { // a file that somebody names has to be there, unlike the usual one
		if _, err := os.Stat(c.crypttab); err != nil {
			return fmt.Errorf("reading crypttab: %w", err)
		}
	}
	var au *automatic
	if c.automatic || c.limit != nil {
		au = newAutomatic(a.root, limitOr(c.limit, workLimit))
	}
	if c.automatic {
		defer au.live()()
	}
	wanted, err := c.wanted(a, names)
	if err != nil {
		return err
	}
	entries, err := c.entries(a)
	if err != nil {
		return err
	}
	jobs, errs := a.planEntries(entries, wanted)
	errs = append(errs, wanted.missing()...)
	if au != nil {
		for _, j := range jobs {
			au.bound(j)
		}
	}
	if c.initrd && !c.automatic && len(jobs) == 0 && len(errs) == 0 {
		return c.nothing()
	}
	if len(jobs) == 0 && c.automatic {
		return errors.Join(errs...)
	}
	as, err := a.newAttacher(jobs)
	if err != nil {
		return err
	}
	defer as.close()
	if err := as.mapper.check(); err != nil && len(jobs) > 0 { // said once, not for every volume
		return errors.Join(append(errs, withModule(err))...)
	}
	if !c.automatic {
		return as.attachJobs(jobs, errs)
	}
	as.setAutomatic(au)
	return errors.Join(append(errs, as.attachFirst(jobs))...)
}

// entries are the lines of crypttab and kernel command line and, with --discover, what
// the partition table adds.
func (c *attachAll) entries(a *app) ([]crypttab.Entry, error) {
	entries, err := a.entries(a.crypttabPath(c.crypttab), c.initrd)
	if err != nil || !c.discover {
		return entries, err
	}
	wait := deviceWait
	if c.automatic || c.limit != nil {
		wait = limitOr(c.limit, workLimit)
	}
	found, err := a.discover(c.initrd, entries, wait)
	if err != nil && a.ctx.Err() == nil && (c.automatic || len(entries) > 0) {
		a.msg.WarnError(err) // somebody else asks, or there are other volumes
		err = nil
	}
	return append(entries, found...), err
}

// nothing is the error about an initrd that has nothing to do.
func (c *attachAll) nothing() error {
	if c.discover {
		return fmt.Errorf("%w, and the partition table of the disk that was booted from marks no LUKS partition that is wanted", errNothingInInitrd)
	}
	return errNothingInInitrd
}

func limitOr(d *time.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return *d
}

// selection says which volumes of crypttab and kernel command line are meant.
type selection struct {
	names  []string // empty: all that are not noauto
	seen   []string // of names
	on     func(name string) bool
	device string
}

// wanted makes the selection of attach-all.
func (c *attachAll) wanted(a *app, names []string) (*selection, error) {
	w := &selection{device: c.device, on: func(string) bool { return true }}
	for _, name := range names {
		w.names = append(w.names, crypttab.Unescape(name))
	}
	if !c.automatic {
		return w, nil
	}
	off, err := a.offForThisBoot()
	if err != nil {
		return nil, err
	}
	if off {
		w.on = func(string) bool { return false }
		w.seen = w.names
		return w, nil
	}
	if s, there, err := a.readBootSwitch(); err != nil || there && len(names) == 0 {
		w.on = s.on
		return w, err
	}
	return w, nil
}

// takes reports whether an entry is meant.
func (w *selection) takes(e *crypttab.Entry, o *crypttab.Options) bool {
	named := slices.Contains(w.names, e.Name)
	if named {
		w.seen = append(w.seen, e.Name)
	}
	switch {
	case len(w.names) > 0 && !named, len(w.names) == 0 && o != nil && o.NoAuto, !w.on(e.Name):
		return false
	case w.device == "":
		return true
	}
	node, err := resolveDevice(e.Source)
	return err == nil && sameFile(node, w.device)
}

// missing has an error for each name that is nowhere defined.
func (w *selection) missing() (errs []error) {
	for _, name := range w.names {
		if !slices.Contains(w.seen, name) {
			errs = append(errs, fmt.Errorf("neither crypttab nor the kernel command line has a volume %q", name))
		}
	}
	return errs
}

// errNothingInInitrd is about an initrd that was made without its crypttab: the root
// volume would be missed much later, by somebody else, and without a reason.
var errNothingInInitrd = errors.New("nothing to attach: neither crypttab nor the kernel command line names a volume for this initrd")

// optionalGrace is how long volumes that the boot does not need are given when those
// that it needs are decided.
const optionalGrace = 10 * time.Second

// errOptional ends what is left then.
var errOptional = errors.New("no longer waited for, because the boot does not need it (nofail or _netdev)")

// optional reports whether the boot goes on without the volume.
func (j *job) optional() bool { return j.options.NoFail || j.options.NetDev }

// attachJobs attaches volumes and joins their failures with errs. Those of nofail
// volumes are only warned about, unless somebody interrupted them.
func (as *attacher) attachJobs(jobs []*job, errs []error) error {
	for i, err := range as.attachTogether(jobs) {
		mild := jobs[i].options.NoFail || errors.Is(err, errOptional)
		if err != nil && mild && as.ctx.Err() == nil {
			as.msg.WarnError(err)
			continue
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// attachTogether attaches volumes at the same time and returns their errors. Optional
// ones hold nothing up: they have as long as the others take, and a moment.
func (as *attacher) attachTogether(jobs []*job) []error {
	newTurns(jobs, as.patience)
	ctx, stop := context.WithCancelCause(as.ctx)
	defer stop(nil)
	results := make([]error, len(jobs))
	var all, needed sync.WaitGroup
	for i, j := range jobs {
		if j.optional() {
			all.Go(func() { results[i] = as.attach(ctx, j) })
			continue
		}
		needed.Go(func() { results[i] = as.attach(as.ctx, j) })
	}
	needed.Wait()
	defer time.AfterFunc(as.grace, func() { stop(errOptional) }).Stop()
	all.Wait()
	return results
}

// planEntries makes jobs of the entries of a selection. errs are those of single lines:
// they do not keep the others from being attached.
func (a *app) planEntries(entries []crypttab.Entry, w *selection) (jobs []*job, errs []error) {
	for _, e := range entries {
		j, err := a.newJob(e)
		var o *crypttab.Options
		if j != nil {
			o = j.options
		}
		switch {
		case !w.takes(&e, o):
		case err != nil && j != nil && j.options.NoFail:
			a.msg.WarnError(err)
		case err != nil:
			errs = append(errs, err)
		default:
			jobs = append(jobs, j)
		}
	}
	return jobs, errs
}

// entries reads crypttab and kernel command line, and prints what was left out.
func (a *app) entries(path string, initrd bool) ([]crypttab.Entry, error) {
	file, err := a.readCrypttab(path, initrd)
	if err != nil {
		return nil, err
	}
	kernel, err := a.kernelLine(initrd)
	if err != nil {
		return nil, err
	}
	entries, notes := kernel.Select(file)
	for _, w := range slices.Concat(file.Warnings, kernel.Warnings, notes) {
		a.msg.Warning(w.Error())
	}
	return entries, nil
}

// readCrypttab reads crypttab, in an initrd one that nobody else can have written. In an
// unpacked image the mode says nothing about that: whoever can write the image can
// change the mode too, and a mode that mkinitramfs has kept must not end a boot.
func (a *app) readCrypttab(path string, initrd bool) (*crypttab.File, error) {
	if !initrd {
		return crypttab.Read(path)
	}
	file, err := crypttab.ReadTrusted(path)
	if errors.Is(err, crypttab.ErrUntrusted) && a.inMemory(path) {
		a.msg.Warning(err.Error() + "; make it mode 0600 where the image is built")
		return crypttab.Read(path)
	}
	return file, err
}

// onRAM reports whether a file lies in a file system without a disk, as that of an
// unpacked initrd.
func onRAM(path string) bool {
	const ramfs = 0x858458f6
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	return uint32(st.Type) == ramfs || uint32(st.Type) == unix.TMPFS_MAGIC
}

// kernelLine reads the kernel command line.
func (a *app) kernelLine(initrd bool) (*crypttab.KernelLine, error) {
	text, err := a.kernelText()
	if err != nil {
		return nil, err
	}
	return crypttab.ParseKernelLine(text, initrd), nil
}

// kernelText is the kernel command line; $SYSTEMD_PROC_CMDLINE replaces it, as for
// systemd's generators.
func (a *app) kernelText() (string, error) {
	if text, ok := os.LookupEnv("SYSTEMD_PROC_CMDLINE"); ok {
		return text, nil
	}
	b, err := os.ReadFile(filepath.Join(a.root, "/proc/cmdline"))
	if err != nil {
		return "", fmt.Errorf("reading the kernel command line: %w", err)
	}
	return string(b), nil
}
