package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
)

// alreadyActive reports whether the volume is mapped under its name. Something else
// under that name is an error.
//
// Unlike systemd, which takes any mapping of the name for the volume.
func (at *attempt) alreadyActive() (bool, error) {
	info, err := at.as.mapper.status(at.job.entry.Name)
	switch {
	case errors.Is(err, dmcrypt.ErrNotActive):
		return false, nil
	case err != nil:
		return false, err
	}
	if info.Source == "" && info.VolumeUUID == at.volume.uuid {
		return false, nil // without a table, left by a killed process: whoever maps takes it away
	}
	source := info.Source
	if info.Image != "" {
		source = info.Image
	}
	if info.Type == string(at.volume.mapping.Type) && info.VolumeUUID == at.volume.uuid && sameFile(source, at.device) {
		at.as.msg.Err.Linef("%s is already attached.", at.job.entry.Name)
		if info.Suspended {
			at.warn("it is suspended: " + suspendedText(at.job.entry.Name))
		}
		return true, at.vouch(info)
	}
	return false, busyOrNot(fmt.Errorf("%w: %s is %s over %s, and not this volume", dmcrypt.ErrNameTaken, info.Node, info.UUID, source))
}

// vouch compares a mapping that is there already with what crypttab restricts, as far as
// that can be seen without the key: by the report of the run that made it, in the
// initrd for example.
func (at *attempt) vouch(info *dmcrypt.Info) error {
	if at.job.options.ReadOnly && !info.ReadOnly {
		at.warn("it is attached for writing although read-only is asked for")
	}
	earlier, err := readReport(at.as.root, at.job.entry.Name)
	if err != nil {
		at.warn(err.Error())
	}
	ours := earlier != nil && earlier.Result == resultAttached && earlier.UUID == at.volume.uuid
	if ours {
		at.earlier = earlier
	}
	switch want := at.job.options.FixateVolumeKey; {
	case want != "" && ours && earlier.Identity != want:
		return fmt.Errorf("%w: the volume key is not the one of fixate-volume-key=: another volume is attached (its identity is %s)", cli.ErrRefused, earlier.Identity)
	case want != "" && !ours:
		at.warn("another program attached it, so fixate-volume-key= cannot be checked")
	case !ours && (at.job.options.MeasurePCR >= 0 || at.job.options.Latch):
		at.warn("another program attached it, so its key cannot be measured here")
	}
	return nil
}

// sameFile reports whether two paths are one block device or one file.
func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	if unix.Stat(a, &x) != nil || unix.Stat(b, &y) != nil {
		return false
	}
	if x.Mode&unix.S_IFMT == unix.S_IFBLK {
		return y.Mode&unix.S_IFMT == unix.S_IFBLK && x.Rdev == y.Rdev
	}
	return x.Dev == y.Dev && x.Ino == y.Ino
}

// activate makes the mapping.
func (at *attempt) activate(ctx context.Context, key *contest.Found) error {
	defer at.report.stage("map")()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f, err := at.volume.device.OpenData()
	if err != nil {
		return err
	}
	defer f.Close()
	r := *at.volume.mapping
	r.File, r.Confirm = f, key.Confirm
	r.Warn = func(err error) { at.warn(err.Error()) }
	r.Name, r.Device, r.Key, r.ReadOnly = at.job.entry.Name, at.device, key.Key, at.job.options.ReadOnly
	r.Flags |= optionFlags(at.job.options)
	err = at.as.mapper.attach(ctx, &r)
	switch {
	case errors.Is(err, dmcrypt.ErrActive): // somebody was faster, with the same volume
		return nil
	case err != nil && isDeviceError(err) && at.goesAway(ctx):
		return fmt.Errorf("%w: %w", luks2.ErrGone, err)
	}
	return busyOrNot(err)
}

// optionFlags are the switches of the table that crypttab asks for.
func optionFlags(o *crypttab.Options) (f dmcrypt.Flags) {
	for _, row := range []struct {
		on   bool
		flag dmcrypt.Flags
	}{
		{o.Discard, dmcrypt.AllowDiscards}, {o.SameCPUCrypt, dmcrypt.SameCPUCrypt}, {o.SubmitFromCPUs, dmcrypt.SubmitFromCryptCPUs},
		{o.NoReadWorkqueue, dmcrypt.NoReadWorkqueue}, {o.NoWriteWorkqueue, dmcrypt.NoWriteWorkqueue},
	} {
		if row.on {
			f |= row.flag
		}
	}
	return f
}

// busyError gives errors of dmcrypt exit status 5.
type busyError struct{ error }

func (e busyError) Unwrap() error { return e.error }

// Is makes errors.Is(err, unix.EBUSY) true.
func (busyError) Is(target error) bool { return target == unix.EBUSY }

// busyOrNot marks errors that say that something is in use, and those about the
// device.
func busyOrNot(err error) error {
	switch {
	case errors.Is(err, dmcrypt.ErrInUse), errors.Is(err, dmcrypt.ErrBusy), errors.Is(err, dmcrypt.ErrNameTaken):
		return busyError{err}
	case errors.Is(err, dmcrypt.ErrDevice):
		return fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	return err
}
