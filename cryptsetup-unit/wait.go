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
func (d *devices) await(ctx context.Context, what string, ref crypttab.DeviceRef, limit time.Duration) (string, error) {
	path, err := d.resolve(ref)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || !canAppear(ref) {
		return path, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := d.watch(ctx, "block")
	if err != nil {
		return "", fmt.Errorf("waiting for %s %s: %w", what, ref, err)
	}
	deadline, mention := after(limit), time.After(quietTime)
	for {
		// Also the first time: it may have come before the subscription.
		path, err := d.resolve(ref)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
		select {
		case _, open := <-events:
			if !open && ctx.Err() == nil {
				return "", fmt.Errorf("waiting for %s %s: the kernel's events ended", what, ref)
			}
		case <-mention:
			defer d.ui.Show(fmt.Sprintf("waiting for %s %s for %s", what, ref, forHowLong(limit)))()
		case <-deadline:
			return "", timeoutError(fmt.Sprintf("%s %s did not appear within %v", what, ref, limit))
		case <-ctx.Done():
			return "", context.Cause(ctx)
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
