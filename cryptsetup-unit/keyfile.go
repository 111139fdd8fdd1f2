package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// maxKeyFile is libcryptsetup's limit (DEFAULT_KEYFILE_SIZE_MAXKB).
const maxKeyFile = 8 << 20

// keyFile is a key file as crypttab names it: a file, a device, or a socket whose
// server sends the key.
type keyFile struct {
	path   string // absolute
	root   string // of the file system that path starts in; "" is ours
	offset uint64
	size   uint32 // at most that many bytes; 0 is all
	// peer is what a server sees of us, "/cryptsetup/NAME": see keySocket.
	peer    string
	timeout time.Duration // for a server's answer
	warn    func(string)
}

// read returns the key, which the caller wipes.
func (k *keyFile) read(ctx context.Context) (secret.Secret, error) {
	if !strings.HasPrefix(k.path, "/") {
		return secret.Secret{}, errors.New("the path is not absolute")
	}
	f, err := k.openFile()
	// open(2) answers ENXIO for sockets, and for nodes of devices that are not there.
	// With an offset systemd does not connect.
	if errors.Is(err, unix.ENXIO) && k.offset == 0 && k.root == "" && isSocket(k.path) {
		return k.readSocket(ctx)
	}
	if err != nil {
		return secret.Secret{}, withoutPath(err)
	}
	defer f.Close()
	if err := k.check(f); err != nil {
		return secret.Secret{}, err
	}
	return k.within(ctx, f, time.Now().Add(k.timeout), k.readFrom)
}

// awaitWriter waits until somebody has opened a FIFO for writing: before that it looks
// like one at its end. The deadline of f ends it.
func awaitWriter(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// within ends a read at a deadline and with ctx. Files and disks have no deadlines and
// need none; a server or a serial line may never send anything.
func (k *keyFile) within(ctx context.Context, f *os.File, deadline time.Time, read func(*os.File) (secret.Secret, error)) (secret.Secret, error) {
	_ = f.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	key, err := read(f)
	if ctx.Err() != nil {
		key.Wipe()
		return secret.Secret{}, context.Cause(ctx)
	}
	return key, err
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

// openFile opens without blocking on a FIFO, and on another file system without
// leaving it through a link.
func (k *keyFile) openFile() (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	if k.root == "" {
		return os.OpenFile(k.path, flags, 0)
	}
	return openBelow(k.root, k.path, flags)
}

// check refuses what cannot hold a key.
func (k *keyFile) check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return withoutPath(err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return errors.New("is a directory")
	case mode.IsRegular() && mode.Perm()&0o007 != 0 && k.root == "" && hasModes(f):
		k.warn(fmt.Sprintf("key file %s: mode %04o lets everybody read it", k.path, mode.Perm()))
	}
	return nil
}

// hasModes is false for file systems in which every file has the mode of the mount.
func hasModes(f *os.File) bool {
	const exfat, ntfs, ntfs3 = 0x2011bab0, 0x5346544e, 0x7366746e
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil {
		return true
	}
	return !slices.Contains([]uint32{unix.MSDOS_SUPER_MAGIC, unix.ISOFS_SUPER_MAGIC, exfat, ntfs, ntfs3}, uint32(st.Type))
}

// readFrom reads the part of the file that is the key.
func (k *keyFile) readFrom(f *os.File) (secret.Secret, error) {
	if k.offset > math.MaxInt64 {
		return secret.Secret{}, errors.New("keyfile-offset= is larger than any file")
	}
	if info, err := f.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		if err := awaitWriter(f); errors.Is(err, os.ErrDeadlineExceeded) {
			return secret.Secret{}, fmt.Errorf("nobody wrote to the FIFO within %v: %w", k.timeout, tokens.ErrTimeout)
		}
	}
	if k.offset != 0 {
		if _, err := f.Seek(int64(k.offset), io.SeekStart); err != nil {
			return secret.Secret{}, fmt.Errorf("seeking to keyfile-offset=: %w", withoutPath(err))
		}
	}
	return k.readAll(f)
}

// readAll reads to the end or as far as keyfile-size= says; a shorter file is fine.
func (k *keyFile) readAll(f *os.File) (secret.Secret, error) {
	var r io.Reader = f
	if k.size != 0 {
		r = io.LimitReader(r, int64(k.size))
	}
	key, err := secret.Read(r, maxKeyFile)
	switch {
	case errors.Is(err, secret.ErrTooLong):
		return secret.Secret{}, fmt.Errorf("has more than %d bytes", maxKeyFile)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return secret.Secret{}, fmt.Errorf("no key came within %v: %w", k.timeout, tokens.ErrTimeout)
	case err != nil:
		return secret.Secret{}, withoutPath(err)
	case key.Len() == 0 && k.offset > 0:
		return secret.Secret{}, fmt.Errorf("it ends before keyfile-offset=%d", k.offset)
	case key.Len() == 0:
		return secret.Secret{}, errors.New("is empty")
	}
	return key, nil
}

// withoutPath drops the path that package os adds: the caller knows it.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// eraseKeyFile implements keyfile-erase: the name goes first, then the contents,
// unless another name still leads to them.
func eraseKeyFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("erasing key file %s: %w", path, withoutPath(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("erasing key file %s: only regular files are erased", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err == nil && st.Nlink == 0 {
		err = overwrite(f, info.Size())
	}
	if err != nil {
		return fmt.Errorf("erasing key file %s: %w", path, withoutPath(err))
	}
	return nil
}

// overwrite replaces the contents by random bytes, on the disk.
func overwrite(f *os.File, size int64) error {
	noise := secret.Random(64 << 10)
	defer noise.Wipe()
	for at := int64(0); at < size; at += int64(noise.Len()) {
		if _, err := f.WriteAt(noise.Bytes()[:min(int64(noise.Len()), size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}
