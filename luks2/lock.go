package luks2

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// lockDir is where libcryptsetup keeps the lock files of block devices
// (lib/utils_device_locking.c).
const lockDir = "/run/cryptsetup"

// Waiting for a lock polls it, since a blocking flock cannot be interrupted by a
// context.
const (
	firstPause = time.Millisecond
	maxPause   = 25 * time.Millisecond
)

// noticeAfter is how long a lock is waited for without a word.
const noticeAfter = time.Second

// LockWait says how operations wait for somebody else who has a lock.
type LockWait struct {
	// Notice is told after a second what is locked, "the header of /dev/sda2"; done is
	// called when nobody waits any more.
	Notice func(what string) (done func())
	// Limit is how long the lock of a header is waited for; the error then is
	// [ErrBusy]. 0: until the context ends.
	Limit time.Duration
}

type lockWait struct{}

// WithLockWait has operations with the context wait so.
func WithLockWait(ctx context.Context, w LockWait) context.Context {
	return context.WithValue(ctx, lockWait{}, w)
}

// lockFile is a file that carries the lock: the image itself, or a file in
// lockDir that its last holder removes.
type lockFile struct {
	fd   int
	dir  int    // descriptor of lockDir; -1 for an image
	name string // in lockDir
}

// session is an open header device with its lock held.
type session struct {
	storage
	file *deviceFile
	lock *lockFile // nil when reading where locks cannot be had
}

// begin opens the header device afresh and takes the lock that libcryptsetup
// takes, shared for reading and exclusive for writing. The context limits the
// wait.
//
// A reader without the means to lock (no /run/cryptsetup and no right to make it,
// a file system without flock) goes on without: the checksums tell it a copy that
// is just being written. Unlike libcryptsetup, which gives up: an initrd without
// /run still has to unlock its root.
func (d *Device) begin(ctx context.Context, write bool) (*session, error) {
	for {
		f, err := d.open(write)
		if err != nil {
			return nil, err
		}
		s := &session{storage: f, file: f}
		if d.observe != nil {
			s.storage = d.observe(f)
		}
		s.lock, err = takeLock(ctx, f, write)
		if err != nil {
			if !write && !errors.Is(err, ErrBusy) {
				s.lock = nil
				return s, nil
			}
			f.close()
			return nil, err
		}
		if f.block || d.hold != nil || samePath(f) {
			return s, nil
		}
		s.end() // the image was replaced while we waited
	}
}

// end releases the lock and closes the device.
func (s *session) end() {
	s.unlock()
	s.file.close()
}

// prefetch begins to read a part of the volume.
func (s *session) prefetch(off int64, n int) { s.file.prefetch(off, n) }

// uncache makes the next reading one of the device.
func (s *session) uncache() { s.file.uncache() }

// unlock lets others at the header; the device stays open for reading key areas.
func (s *session) unlock() {
	if s.lock != nil {
		s.lock.release()
		s.lock = nil
	}
}

func takeLock(ctx context.Context, f *deviceFile, write bool) (*lockFile, error) {
	mode, what := unix.LOCK_SH, "the header of "+f.path
	if write {
		mode = unix.LOCK_EX
	}
	if !f.block {
		l := &lockFile{fd: f.fd, dir: -1}
		return l, waitFlock(ctx, l.fd, mode, what)
	}
	return takeNamedLock(ctx, fmt.Sprintf("L_%d:%d", unix.Major(f.rdev), unix.Minor(f.rdev)), mode, what)
}

// takeNamedLock locks a file of lockDir. The last holder unlinks it, so a file
// that was locked may be gone already: then it counts for nothing and the next
// one is tried.
func takeNamedLock(ctx context.Context, name string, mode int, what string) (*lockFile, error) {
	for {
		l, err := openLockFile(name)
		if err != nil {
			return nil, fmt.Errorf("opening lock file %s/%s: %w", lockDir, name, err)
		}
		if err := waitFlock(ctx, l.fd, mode, what); err != nil {
			l.close()
			return nil, err
		}
		if l.current() {
			return l, nil
		}
		l.release()
	}
}

func openLockFile(name string) (*lockFile, error) {
	const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dir, err := unix.Open(lockDir, dirFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err = unix.Mkdir(lockDir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		dir, err = unix.Open(lockDir, dirFlags, 0)
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_NOFOLLOW|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		_ = unix.Close(dir)
		return nil, err
	}
	return &lockFile{fd, dir, name}, nil
}

// waitFlock tries until it has the lock or the context ends. The times are those of
// the pauses.
func waitFlock(ctx context.Context, fd, mode int, what string) error {
	w, _ := ctx.Value(lockWait{}).(LockWait)
	waited := time.Duration(0)
	for pause := firstPause; ; pause = min(pause*3/2, maxPause) {
		_, err := retry(func() (int, error) { return 0, unix.Flock(fd, mode|unix.LOCK_NB) })
		if err == nil {
			return nil
		}
		if err != unix.EWOULDBLOCK {
			return fmt.Errorf("locking %s: %w", what, err)
		}
		if w.Limit > 0 && waited >= w.Limit {
			return fmt.Errorf("locking %s: %w for more than %v", what, ErrBusy, w.Limit)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("locking %s: %w: %w", what, ErrBusy, context.Cause(ctx))
		case <-time.After(pause):
		}
		if before := waited; w.Notice != nil && before < noticeAfter && before+pause >= noticeAfter {
			defer w.Notice(what)()
		}
		waited += pause
	}
}

// current reports whether the name still means the file that is locked.
func (l *lockFile) current() bool {
	var own, named unix.Stat_t
	return unix.Fstat(l.fd, &own) == nil && unix.Fstatat(l.dir, l.name, &named, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		own.Ino == named.Ino && own.Dev == named.Dev
}

// release gives the lock up and, if nobody else holds it, removes its file, as
// libcryptsetup does.
func (l *lockFile) release() {
	_ = unix.Flock(l.fd, unix.LOCK_UN)
	if l.dir < 0 {
		return // the image's descriptor is not ours to close
	}
	if unix.Flock(l.fd, unix.LOCK_EX|unix.LOCK_NB) == nil && l.current() {
		_ = unix.Unlinkat(l.dir, l.name, 0)
	}
	l.close()
}

func (l *lockFile) close() {
	if l.dir >= 0 {
		_ = unix.Close(l.fd)
		_ = unix.Close(l.dir)
	}
}

// samePath reports whether the path of an image still leads to the open file.
func samePath(f *deviceFile) bool {
	var own, named unix.Stat_t
	return unix.Fstat(f.fd, &own) == nil && unix.Stat(f.path, &named) == nil && own.Ino == named.Ino && own.Dev == named.Dev
}

// memoryHardLock keeps computations that take much memory, of this and other
// programs, from running at once (libcryptsetup crypt_serialize_lock, which
// systemd asks for). It is best effort: without /run/cryptsetup it does nothing. The
// others may compute for as long as it takes.
func memoryHardLock(ctx context.Context) (release func(), err error) {
	w, _ := ctx.Value(lockWait{}).(LockWait)
	w.Limit = 0
	l, err := takeNamedLock(WithLockWait(ctx, w), "LN_memory-hard-access", unix.LOCK_EX, "access to much memory")
	if errors.Is(err, ErrBusy) {
		return nil, err
	}
	if err != nil {
		return func() {}, nil
	}
	return l.release, nil
}
