package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

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
	as, err := a.newAttacher(jobs)
	if err != nil {
		return err
	}
	defer as.close()
	return as.attachJobs(jobs, errs)
}

// attachJobs attaches volumes and joins their failures with errs. Those of nofail
// volumes are only warned about, unless somebody interrupted them.
func (as *attacher) attachJobs(jobs []*job, errs []error) error {
	results := make([]error, len(jobs))
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() { results[i] = as.attach(as.ctx, j) })
	}
	wg.Wait()
	for i, err := range results {
		if err != nil && jobs[i].options.NoFail && as.ctx.Err() == nil {
			as.msg.WarnError(err)
			continue
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
	read := crypttab.Read
	if initrd {
		read = crypttab.ReadTrusted
	}
	file, err := read(path)
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
