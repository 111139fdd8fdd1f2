package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"luksmith/crypttab"
	"luksmith/luks2"
)

// lostVolume is what was known of a volume whose device went away.
type lostVolume struct {
	uuid   string
	device string // node
	// changed counts headers that were exchanged while they were read, broken reads
	// that failed without a reason.
	changed, broken int
}

// maxTrouble bounds how often a volume is looked for again whose device stays where it
// is: a disk that lies must not keep a machine busy.
const maxTrouble = 3

// goneWait is the time within which the kernel takes a device away after a read of it
// has failed.
const goneWait = 2 * time.Second

// again reports whether the volume has to be found again: its device went away or was
// exchanged, under the question or while a key was computed. Nothing of the old device
// is used any more; whoever types next types for what is there then.
func (at *attempt) again(ctx context.Context, err error) bool {
	switch {
	case err == nil || ctx.Err() != nil:
		return false
	case errors.Is(err, luks2.ErrChanged):
		at.lost.changed++
	case errors.Is(err, luks2.ErrGone):
	case !at.unreadable(err):
		return false
	case !at.goesAway(ctx):
		at.lost.broken++
	}
	if at.lost.changed > maxTrouble || at.lost.broken > maxTrouble {
		return false
	}
	at.lost.device = at.device
	if at.volume != nil {
		at.lost.uuid = at.volume.uuid
	}
	at.warn(fmt.Sprintf("%s is looked for again: %v", at.job.entry.Source, err))
	return true
}

// unreadable reports whether a round ended because the volume could not be read.
func (at *attempt) unreadable(err error) bool {
	if at.opener != nil {
		return at.opener.readError() != nil
	}
	return at.device != "" && canAppear(at.job.entry.Source) && isDeviceError(err)
}

// goesAway reports whether the device of a failed read is gone, or will be soon.
func (at *attempt) goesAway(ctx context.Context) bool {
	if at.held == nil {
		return true // while it was opened
	}
	limit := time.NewTimer(goneWait)
	defer limit.Stop()
	for at.present() == nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// present reports devices of the volume that went away: luks2.ErrGone.
func (at *attempt) present() error {
	return errors.Join(at.held.Present(), at.headerPresent())
}

// whilePresent ends a context when the volume's device goes: with it goes the question.
func (at *attempt) whilePresent(ctx context.Context) (context.Context, func()) {
	ctx, end := context.WithCancelCause(ctx)
	events, err := at.as.devices.watch(ctx, "block")
	if err != nil {
		return ctx, func() { end(nil) } // what is read, and the mapping, shows it too
	}
	go func() {
		for range events {
			if err := at.present(); err != nil {
				end(err)
			}
		}
	}()
	return ctx, func() { end(nil) }
}

// sources are what names the device: what crypttab says and, for one that went away and
// was named by a path such as /dev/sdb, the volume's UUID. It may come back under
// another name.
func (at *attempt) sources() []crypttab.DeviceRef {
	list := []crypttab.DeviceRef{at.job.entry.Source}
	if at.lost.uuid != "" && at.job.header.Path == "" && canAppear(list[0]) {
		list = append(list, crypttab.ParseDeviceRef("UUID="+at.lost.uuid))
	}
	return list
}

// noteVolume says which volume it is, and whether that is another one than before.
func (at *attempt) noteVolume() {
	at.report.UUID = at.volume.uuid
	if h := at.volume.header; h != nil && h.Foreign != "" {
		at.warn(fmt.Sprintf("%s has the signature of %s and a damaged or old copy of its header: the other copy is used; look at it with wipefs before writing to the volume", at.device, h.Foreign))
	}
	if at.lost.uuid != "" && at.lost.uuid != at.volume.uuid {
		at.warn(fmt.Sprintf("%s has another volume now: UUID %s, before it was %s", at.device, at.volume.uuid, at.lost.uuid))
	}
}
