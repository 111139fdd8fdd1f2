package luks2

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// storage is the header device while a lock on it is held. Tests put a recorder
// in its place.
type storage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // fsync
}

// deviceFile is an open block device or image file. It works on the descriptor
// without os.File, which would add system calls to each of the short sessions of
// a header device.
type deviceFile struct {
	fd    int
	path  string
	block bool
	rdev  uint64 // of a block device
	start uint64 // of the volume in the file, bytes
	size  uint64 // of the volume, bytes
}

// openDevice opens a header device, which is called name in messages. O_NONBLOCK
// keeps a FIFO in the wrong place from blocking the open.
func openDevice(path, name string, write bool) (*deviceFile, error) {
	flags := unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_RDONLY
	if write {
		flags = unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_RDWR
	}
	fd, err := retry(func() (int, error) { return unix.Open(path, flags, 0) })
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	f := &deviceFile{fd: fd, path: name}
	if err := f.inspect(); err != nil {
		f.close()
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM) // nothing is to be read but headers and key areas
	return f, nil
}

// inspect finds out what was opened and how large it is.
func (f *deviceFile) inspect() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.size = uint64(st.Size)
		return nil
	case unix.S_IFBLK:
		end, err := unix.Seek(f.fd, 0, io.SeekEnd)
		f.block, f.rdev, f.size = true, st.Rdev, uint64(end)
		return err
	}
	return fmt.Errorf("%w: neither a block device nor a regular file", ErrNotLUKS2)
}

// Window is a part of a file, in bytes. What lies outside of it is neither read nor
// written, and the rules about what fits the device are about it: a header that points
// outside is refused. The lock is that of the whole file.
type Window struct {
	Offset, Size uint64
}

// narrow restricts the file to a window; the zero value leaves it whole.
func (f *deviceFile) narrow(w Window) error {
	if w == (Window{}) {
		return nil
	}
	if w.Size == 0 || w.Offset > f.size || w.Size > f.size-w.Offset {
		return fmt.Errorf("opening %s: bytes %d to %d are not all in the file, which has %d", f.path, w.Offset, w.Offset+w.Size, f.size)
	}
	f.start, f.size = w.Offset, w.Size
	return nil
}

// within returns the place in the file for an offset in the volume, and how many of n
// bytes lie in it.
func (f *deviceFile) within(off int64, n int) (at int64, length int) {
	if off < 0 || uint64(off) >= f.size {
		return 0, 0
	}
	return int64(f.start) + off, int(min(uint64(n), f.size-uint64(off)))
}

func (f *deviceFile) close() { _ = unix.Close(f.fd) }

// ReadAt reads at an offset; io.EOF behind the end.
func (f *deviceFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	at, length := f.within(off, len(p))
	for done < length {
		n, err := retry(func() (int, error) { return unix.Pread(f.fd, p[done:length], at+int64(done)) })
		if err != nil {
			return done, fmt.Errorf("reading %s: %w", f.path, err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// WriteAt writes at an offset, through the page cache: O_DIRECT would need
// aligned buffers and gains nothing before an fsync.
func (f *deviceFile) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	at, length := f.within(off, len(p))
	if length < len(p) {
		return 0, fmt.Errorf("writing %s: %d bytes at %d do not fit into its %d", f.path, len(p), off, f.size)
	}
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pwrite(f.fd, p[done:], at+int64(done)) })
		if err != nil {
			return done, fmt.Errorf("writing %s: %w", f.path, err)
		}
		done += n
	}
	return done, nil
}

// Sync waits until all that was written is on the disk. After an error the state
// of the disk is unknown and a second fsync would lie (the kernel reports a lost
// write once), so callers give up.
func (f *deviceFile) Sync() error {
	if _, err := retry(func() (int, error) { return 0, unix.Fsync(f.fd) }); err != nil {
		return fmt.Errorf("flushing %s: %w", f.path, err)
	}
	return nil
}

// prefetch has the kernel read a part of the volume in the background, as far as it
// can.
func (f *deviceFile) prefetch(off int64, n int) {
	if at, length := f.within(off, n); length > 0 { // none would be all the rest
		_ = unix.Fadvise(f.fd, at, int64(length), unix.FADV_WILLNEED)
	}
}

// uncache drops what the page cache has of the device, which an fsync has made
// clean, so that it is read again from there. File systems in memory ignore it.
func (f *deviceFile) uncache() { _ = unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED) }

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
