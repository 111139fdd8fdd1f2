//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/helper"
	"luksmith/tokens/fido2/wire"
)

const (
	// settle is how long a device may lack its node or its permissions after the
	// kernel announced it: devtmpfs and udevd come a little later.
	settle = time.Second
	// patience is how long another program may hold the device: at boot it is
	// likely to be this one, waiting for the touch that unlocks another volume.
	// libfido2 itself waits for 21 s, and does not say why it failed.
	patience = 2 * time.Minute
	interval = 100 * time.Millisecond
)

// ready waits until the device at path can be used and returns its identity.
// Nothing is sent to it. The device is open only if the kernel says that it is a
// FIDO device or knows nothing about it: opening others can have consequences.
func ready(ctx context.Context, path string, notify func(event string)) (fs.FileInfo, error) {
	var f *os.File
	for begin := time.Now(); ; {
		if err := checkKind(path); err != nil {
			return nil, err
		}
		var err error
		f, err = os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err == nil {
			break
		}
		if coming := announced(path) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)); !coming || time.Since(begin) > settle {
			return nil, openError(err)
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
	defer f.Close()
	if err := waitUntilFree(ctx, f, notify); err != nil {
		return nil, err
	}
	return f.Stat()
}

// announced reports whether the kernel has a hidraw device of that name.
func announced(path string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/hidraw", filepath.Base(path)))
	return err == nil
}

// checkKind refuses what is certainly no FIDO device.
func checkKind(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if announced(path) {
			return nil // its node is still to come
		}
		return openError(&fs.PathError{Op: "stat", Path: path, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return &helper.Error{Code: wire.NotFIDO2, Message: path + " is not a character device"}
	}
	sys := fmt.Sprintf("/sys/dev/char/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	subsystem, err := os.Readlink(filepath.Join(sys, "subsystem"))
	if err != nil {
		return nil // no sysfs here, or nothing known about the device
	}
	if filepath.Base(subsystem) != "hidraw" {
		return &helper.Error{Code: wire.NotFIDO2, Message: path + " is not a hidraw device"}
	}
	descriptor, err := os.ReadFile(filepath.Join(sys, "device/report_descriptor"))
	if err == nil && !isFIDO(descriptor) {
		return &helper.Error{Code: wire.NotFIDO2, Message: path + " is another kind of HID device"}
	}
	return nil
}

// isFIDO looks for the usage page of FIDO devices, 0xF1D0, in a report descriptor
// (CTAP 2.1 §11.2.8.1; HID 1.11 §6.2.2.2).
func isFIDO(descriptor []byte) bool {
	const usagePage, longItem, fido = 0x04, 0xfe, 0xf1d0
	for i := 0; i < len(descriptor); {
		head := descriptor[i]
		if head == longItem {
			if i+1 >= len(descriptor) {
				return false
			}
			i += 3 + int(descriptor[i+1])
			continue
		}
		size := [...]int{0, 1, 2, 4}[head&3]
		if i+1+size > len(descriptor) {
			return false
		}
		value := 0
		for j, b := range descriptor[i+1 : i+1+size] {
			value |= int(b) << (8 * j)
		}
		if head&^3 == usagePage && value == fido {
			return true
		}
		i += 1 + size
	}
	return false
}

// waitUntilFree waits while another program holds the lock that libfido2 takes.
func waitUntilFree(ctx context.Context, f *os.File, notify func(event string)) error {
	for begin, told := time.Now(), false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return &helper.Error{Code: wire.InUse, Message: fmt.Sprintf("locking %s: %v", f.Name(), err)}
		case time.Since(begin) > patience:
			return &helper.Error{Code: wire.InUse, Message: f.Name() + " is used by another program"}
		}
		if !told {
			notify(wire.EventInUse)
			told = true
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// removed reports whether the device is not there any more, or another is in its
// place. The kernel wakes readers just before it takes the node away.
func removed(path string, before fs.FileInfo) bool {
	const tries, wait = 10, 20 * time.Millisecond
	for range tries {
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
			return true
		}
		time.Sleep(wait)
	}
	return false
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return &helper.Error{Code: wire.Cancelled}
	case <-time.After(interval):
		return nil
	}
}

func openError(err error) error {
	code := wire.NotFIDO2
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOTDIR):
		code = wire.NoDevice
	case errors.Is(err, fs.ErrPermission):
		code = wire.NoPermission
	case errors.Is(err, unix.EBUSY):
		code = wire.InUse
	}
	return &helper.Error{Code: code, Message: err.Error()}
}
