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
// "device", "header device".
func (d *devices) await(ctx context.Context, what string, ref crypttab.DeviceRef, limit time.Duration) (node string, err error) {
	if !canAppear(ref) {
		return d.resolve(ref)
	}
	err = d.until(ctx, awaited{what + " " + ref.String(), []string{"block"}, fs.ErrNotExist, limit}, func() (err error) {
		node, err = d.resolve(ref)
		return err
	})
	return node, err
}

// awaited is something that may appear.
type awaited struct {
	what       string   // "device UUID=…"
	subsystems []string // whose events announce it
	missing    error    // says that it is not there
	limit      time.Duration
}

// until calls try until that does not fail because something is missing: at once,
// and after each event until the limit.
func (d *devices) until(ctx context.Context, w awaited, try func() error) error {
	if err := try(); !errors.Is(err, w.missing) {
		return err
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
		if err := try(); !errors.Is(err, w.missing) {
			return err
		}
		select {
		case _, open := <-events:
			if !open && ctx.Err() == nil {
				return fmt.Errorf("waiting for %s: the kernel's events ended", w.what)
			}
		case <-mention:
			defer d.ui.Show(fmt.Sprintf("waiting for %s for %s", w.what, forHowLong(w.limit)))()
		case <-deadline:
			return timeoutError(fmt.Sprintf("%s did not appear within %v", w.what, w.limit))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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
