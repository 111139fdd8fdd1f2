package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// mountFunc mounts a device read-only in a private place and returns the place.
// release unmounts it.
type mountFunc func(ctx context.Context, device string) (root string, release func() error, err error)

// keyFileWay opens the volume with a key file.
type keyFileWay struct {
	file keyFile
	// device has the file system in which the file lies; nil if it is mounted.
	device  *crypttab.DeviceRef
	devices *devices
	mount   mountFunc
	wait    time.Duration // for the device
	try     tryFunc
}

func (w *keyFileWay) Name() string {
	if w.device != nil {
		return fmt.Sprintf("key file %s on %s", w.file.path, w.device)
	}
	return "key file " + w.file.path
}

func (w *keyFileWay) Open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	key, err := w.read(ctx, busy)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	f, err := w.try(ctx, key, nil)
	switch {
	case err == nil:
		f.By = w.Name()
	case errors.Is(err, luks2.ErrNoKey) && bytes.HasSuffix(key.Bytes(), []byte("\n")):
		err = &lineEndError{err, key.Len() - 1}
	}
	return f, err
}

// lineEndError is about a key that ends as text does: editors and echo add a line end,
// which counts.
type lineEndError struct {
	error
	without int // bytes
}

func (e *lineEndError) Error() string { return e.error.Error() + "; the key ends with a line end" }

func (e *lineEndError) Unwrap() error { return e.error }

// Hint leaves the line end out.
func (e *lineEndError) Hint() string {
	return fmt.Sprintf("if the line end is not part of the key: keyfile-size=%d in the options", e.without)
}

// read returns the contents of the file, mounting its device for the moment.
func (w *keyFileWay) read(ctx context.Context, busy func(bool)) (key secret.Secret, err error) {
	if w.device == nil {
		return w.readPath(ctx, busy)
	}
	busy(false)
	node, err := w.devices.await(ctx, "key device", w.wait, *w.device)
	busy(true)
	if err != nil {
		return key, err
	}
	root, release, err := w.mount(ctx, node)
	if err != nil {
		return key, fmt.Errorf("mounting %s: %w", node, err)
	}
	file := w.file
	file.root = root
	key, err = file.read(ctx)
	if undo := release(); undo != nil {
		key.Wipe()
		return secret.Secret{}, errors.Join(err, fmt.Errorf("unmounting %s: %w", node, undo))
	}
	return key, err
}

// readPath reads a file that is there, or a device that may still come: the key itself
// can stand on a stick without a file system.
func (w *keyFileWay) readPath(ctx context.Context, busy func(bool)) (secret.Secret, error) {
	ref := crypttab.LiteralDeviceRef(w.file.path)
	info, err := os.Stat(w.file.path)
	if err == nil && info.Mode()&fs.ModeNamedPipe != 0 { // nobody may ever write to it
		busy(false)
		defer busy(true)
	}
	if w.devices == nil || !canAppear(ref) || !errors.Is(err, fs.ErrNotExist) {
		return w.file.read(ctx)
	}
	busy(false)
	node, err := w.devices.await(ctx, "key device", w.wait, ref)
	busy(true)
	if err != nil {
		return secret.Secret{}, err
	}
	file := w.file
	file.path = node
	return file.read(ctx)
}

// emptyWay tries the empty passphrase (try-empty-password).
type emptyWay struct{ try tryFunc }

func (emptyWay) Name() string { return "empty passphrase" }

func (w emptyWay) Open(ctx context.Context, _ func(bool)) (*contest.Found, error) {
	f, err := w.try(ctx, secret.Secret{}, nil)
	if err == nil {
		f.By = w.Name()
	}
	return f, err
}
