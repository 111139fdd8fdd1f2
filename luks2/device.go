package luks2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// OpenOptions are the choices of [Open]. The zero value is usual.
type OpenOptions struct {
	// Header is the block device or file with a detached header. Empty: the
	// header is at the start of the device itself.
	Header string
	// Window is the part of the file that is the volume, for a partition of an image;
	// the zero value is all of it. It does not go with Header.
	Window Window
	// ReadOnly makes Update refuse with [ErrReadOnly].
	ReadOnly bool
	// Hold keeps both devices open until Close, so that everything is read from
	// the disk that stood there at Open, even if its path comes to mean another
	// one. A disk that goes away gives [ErrGone], a header of another volume in
	// its place [ErrChanged]. Programs that map a volume set it; a device that is
	// held cannot be dissolved by mdadm or dmsetup meanwhile.
	Hold bool
	// Workspace is the memory for key derivations, which several Devices may share; nil
	// is one of its own.
	Workspace *Workspace
}

// Device is a LUKS2 volume, named by the paths of its devices. It holds nothing
// open between calls unless OpenOptions.Hold asks for it; each one opens the
// header device afresh, takes its lock and reads the header as it then is. It is
// safe for concurrent use, but for Close.
type Device struct {
	path, header string
	window       Window
	readOnly     bool
	hold         *hold                 // nil unless asked for
	observe      func(storage) storage // of tests; else nil
	workspace    *Workspace

	mu   sync.Mutex
	seen *identity // of the first header that was read
	last *loaded   // what was judged last, if it can be known again
}

// Open names a volume. It checks whether the header device is there, a block device
// or regular file and, without OpenOptions.ReadOnly, whether it may be written, so
// that nobody is asked for a passphrase in vain; the header is read by the methods.
// Nothing is written, not even to repair a damaged copy.
func Open(path string, o *OpenOptions) (*Device, error) {
	if o == nil {
		o = &OpenOptions{}
	}
	d := &Device{path: path, header: path, window: o.Window, readOnly: o.ReadOnly, workspace: o.Workspace}
	if d.workspace == nil {
		d.workspace = NewWorkspace()
	}
	if o.Header != "" && o.Window != (Window{}) {
		return nil, fmt.Errorf("opening %s: a part of a file and a detached header do not go together", path)
	}
	if o.Header != "" {
		d.header = o.Header
	}
	var st unix.Stat_t
	if err := unix.Stat(d.header, &st); err != nil {
		return nil, fmt.Errorf("opening %s: %w", d.header, err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return nil, fmt.Errorf("opening %s: %w: neither a block device nor a regular file", d.header, ErrNotLUKS2)
	}
	if !o.ReadOnly {
		if err := mayWrite(d.header, &st); err != nil {
			return nil, fmt.Errorf("%s cannot be written: %w", d.header, err)
		}
	}
	if o.Hold {
		var err error
		if d.hold, err = newHold(d.path, d.header); err != nil {
			return nil, fmt.Errorf("opening the volume: %w", err)
		}
	}
	return d, nil
}

// mayWrite says why a file cannot be opened for writing. It is not opened, which
// would make udev look at the device again.
func mayWrite(path string, st *unix.Stat_t) error {
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return mayChange(path)
	}
	readOnly, _ := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/ro", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if string(bytes.TrimSpace(readOnly)) == "1" {
		return errors.New("the device is read-only")
	}
	return nil
}

// mayChange says why a file cannot be changed that its permissions allow to write.
func mayChange(path string) error {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &st); err == nil && st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		return errors.New("it is marked as immutable (chattr +i)")
	}
	return nil
}

// Close ends the use of the Device and closes what OpenOptions.Hold kept open.
func (d *Device) Close() error {
	if d.hold != nil {
		d.hold.close()
	}
	return nil
}

// Path is the data device as it was given to Open.
func (d *Device) Path() string { return d.path }

// HeaderPath is the header device: that of OpenOptions.Header, else Path.
func (d *Device) HeaderPath() string { return d.header }

// Header reads both copies of the header under the shared lock, validates them
// and returns the one that counts. Errors: [ErrNotLUKS2], [ErrLUKS1],
// [FormatError] if no copy is valid, [ErrSignature] for a device that became a part of
// a volume group or RAID, [ErrBusy], I/O errors.
func (d *Device) Header(ctx context.Context) (*Header, error) {
	s, l, err := d.beginReading(ctx)
	if err != nil {
		return nil, err
	}
	s.end()
	return l.header(), nil
}

// beginReading returns the header and the session in which it was read, which the
// caller ends.
func (d *Device) beginReading(ctx context.Context) (*session, *loaded, error) {
	s, err := d.begin(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	l, err := d.load(s)
	if err != nil {
		s.end()
		return nil, nil, d.gone(err)
	}
	return s, l, nil
}

// load reads the header in a session.
func (d *Device) load(s *session) (*loaded, error) {
	l, err := d.judge(s)
	if err != nil {
		return nil, fmt.Errorf("reading header of %s: %w", d.header, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.whole != nil {
		d.last = l
	}
	id := l.identity()
	if d.seen == nil {
		d.seen = &id
	}
	if d.hold != nil && *d.seen != id {
		return nil, fmt.Errorf("reading header of %s: %w", d.header, ErrChanged)
	}
	return l, nil
}

// judge reads and validates the header, or finds that the bytes are those of last
// time: an attach reads the header three times, and its checksums cost more than
// that.
func (d *Device) judge(s *session) (*loaded, error) {
	b, err := readBeginning(s, s.file.size)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	if last != nil && b.equal(last.whole) {
		return last, nil
	}
	return validator{}.judge(s, b)
}
