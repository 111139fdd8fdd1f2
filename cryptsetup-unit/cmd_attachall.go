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

// attachAllVerb is attach-all: what systemd's generator and its units do together.
func attachAllVerb() ([]flag, func(*app, []string) error) {
	var path string
	var initrd bool
	flags := []flag{
		{"crypttab", "FILE", "read this file instead of /etc/crypttab", func(v string) error { path = v; return nil }},
		{"initrd", "", "obey rd.luks.… too, and refuse a crypttab that others than root can write", func(string) error { initrd = true; return nil }},
	}
	return flags, func(a *app, _ []string) error { return a.attachAll(path, initrd) }
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

// attachAll attaches the volumes that are not noauto, all at the same time.
func (a *app) attachAll(path string, initrd bool) error {
	if path != "" { // a file that somebody names has to be there, unlike the usual one
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("reading crypttab: %w", err)
		}
	}
	jobs, errs, err := a.planAll(a.crypttabPath(path), initrd)
	if err != nil {
		return err
	}
	if initrd && len(jobs) == 0 && len(errs) == 0 {
		return errNothingInInitrd
	}
	as, err := a.newAttacher(jobs)
	if err != nil {
		return err
	}
	defer as.close()
	return as.attachJobs(jobs, errs)
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

// planAll makes jobs of crypttab and kernel command line. errs are those of single
// lines: they do not keep the others from being attached.
func (a *app) planAll(path string, initrd bool) (jobs []*job, errs []error, err error) {
	entries, err := a.entries(path, initrd)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		j, err := a.newJob(e)
		switch {
		case j != nil && j.options.NoAuto:
		case err != nil && j != nil && j.options.NoFail:
			a.msg.WarnError(err)
		case err != nil:
			errs = append(errs, err)
		default:
			jobs = append(jobs, j)
		}
	}
	return jobs, errs, nil
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
