package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"luksmith/luks2/secret"
)

// maxKeyFile is libcryptsetup's limit for key files.
const maxKeyFile = 8 << 20

// withKeyFile reads --unlock-key-file=.
func (u *unlocker) withKeyFile(ctx context.Context, t *target) (*opened, error) {
	name := "key file " + u.how.keyFile
	if u.how.keyFile == "-" {
		name = "the key from the standard input"
	}
	key, err := u.how.readKeyFile(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	defer key.Wipe()
	return u.tryPassphrase(ctx, t, key, name)
}

// readKeyFile reads the part of the key file that the options name; "-" is the
// standard input. A line end at the end belongs to the key, as for cryptsetup.
func (o *unlockOptions) readKeyFile(ctx context.Context) (secret.Secret, error) {
	f := os.Stdin
	if o.keyFile != "-" {
		var err error
		// Not blocking: a FIFO without a writer must not hang the command.
		if f, err = os.OpenFile(o.keyFile, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			return secret.Secret{}, errors.Unwrap(err)
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil {
			return secret.Secret{}, err
		} else if info.IsDir() {
			return secret.Secret{}, errors.New("it is a folder")
		}
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	if o.keyOffset > 0 {
		if _, err := io.CopyN(io.Discard, f, int64(o.keyOffset)); err != nil {
			return secret.Secret{}, fmt.Errorf("skipping %d bytes: %w", o.keyOffset, err)
		}
	}
	var r io.Reader = f
	if o.keySize > 0 {
		if o.keySize > maxKeyFile {
			return secret.Secret{}, fmt.Errorf("%d bytes asked for, at most %d are allowed", o.keySize, maxKeyFile)
		}
		r = io.LimitReader(f, int64(o.keySize))
	}
	key, err := secret.Read(r, maxKeyFile)
	switch {
	case ctx.Err() != nil:
		key.Wipe()
		return secret.Secret{}, context.Cause(ctx)
	case errors.Is(err, secret.ErrTooLong):
		return key, fmt.Errorf("it has more than %d bytes", maxKeyFile)
	case err == nil && o.keySize > 0 && uint64(key.Len()) < o.keySize:
		defer key.Wipe()
		return secret.Secret{}, fmt.Errorf("it ends after %d of %d bytes", key.Len(), o.keySize)
	}
	return key, err
}
