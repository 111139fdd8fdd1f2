package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"luksmith/crypttab"
	"luksmith/tokens"
)

// resolveFunc returns the node of a device that is there now. An error that is
// fs.ErrNotExist means that it may still come; any other one is final.
type resolveFunc func(crypttab.DeviceRef) (string, error)

// deviceWait is systemd's DefaultDeviceTimeoutSec.
const deviceWait = 90 * time.Second

// quietTime is how long a wait is not worth mentioning.
const quietTime = time.Second

// devices finds block devices and waits for those that are not there yet.
type devices struct {
	resolve resolveFunc
	watch   watchFunc
	ui      tokens.UI
}

// await returns the node of a device as soon as it is there. what names its role:
// "device", "header device". Of several names for it the first one that leads
// somewhere counts.
func (d *devices) await(ctx context.Context, what string, limit time.Duration, names ...crypttab.DeviceRef) (node string, err error) {
	if !canAppear(names[0]) {
		return d.resolve(names[0])
	}
	err = d.until(ctx, awaited{what + " " + names[0].String(), []string{"block"}, fs.ErrNotExist, limit}, func() (err error) {
		node, err = d.find(names)
		return err
	})
	return node, err
}

// find looks for a device by its names.
func (d *devices) find(names []crypttab.DeviceRef) (node string, err error) {
	var errs []error
	for _, ref := range names {
		node, err := d.resolve(ref)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return node, err
		}
		errs = append(errs, err)
	}
	return "", errs[0]
}

// until calls try until that does not fail because something is missing: at once,
// and after each event until the limit.
func (d *devices) until(ctx context.Context, w awaited, try func() error) error {
	last := try()
	if !errors.Is(last, w.missing) {
		return last
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := d.watch(ctx, w.subsystems...)
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", w.what, err)
	}
	deadline, mention := after(w.limit), time.After(quietTime)
	for {
		// Also the first time: it may have come before the subscription.
		if last = try(); !errors.Is(last, w.missing) {
			return last
		}
		select {
		case _, open := <-events:
			if !open && ctx.Err() == nil {
				return fmt.Errorf("waiting for %s: the kernel's events ended", w.what)
			}
		case <-mention:
			defer d.ui.Show(fmt.Sprintf("waiting for %s for %s", w.what, forHowLong(w.limit)))()
		case <-deadline:
			return w.timedOut(last)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// timedOut is the error at the end of the wait; last says why the thing is missing.
func (w awaited) timedOut(last error) error {
	if several, ok := errors.AsType[*severalError](last); ok {
		return timeoutError(several.Error())
	}
	if w.limit == 0 {
		return timeoutError(w.what + " is not there")
	}
	return timeoutError(fmt.Sprintf("%s did not appear within %v", w.what, w.limit))
}

// timeoutError is tokens.ErrTimeout, for the exit status, without its words about
// security devices.
type timeoutError string

func (e timeoutError) Error() string { return string(e) }

// Is makes errors.Is(err, tokens.ErrTimeout) true.
func (timeoutError) Is(target error) bool { return target == tokens.ErrTimeout }

// canAppear is false for image files: nobody announces them.
func canAppear(ref crypttab.DeviceRef) bool {
	return ref.Tag != crypttab.TagPath || strings.HasPrefix(ref.Value, "/dev/")
}
