package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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
		} else if info.Mode().Type() == fs.ModeNamedPipe {
			if err := waitForWriter(ctx, f, maxWriterWait); err != nil {
				return secret.Secret{}, err
			}
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

// maxWriterWait is how long a FIFO may stay without anybody who writes the key.
const maxWriterWait = 30 * time.Second

// waitForWriter waits until there is something to read in a FIFO, or its writer has
// closed it again.
func waitForWriter(ctx context.Context, f *os.File, limit time.Duration) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(limit); ctx.Err() == nil; {
		ready := 0
		if err := conn.Control(func(fd uintptr) {
			ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		}); err != nil {
			return err
		}
		switch {
		case ready > 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("nobody wrote a key into it within %v", limit)
		}
	}
	return context.Cause(ctx)
}
