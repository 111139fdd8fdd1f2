package dmcrypt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// source is the block device below a mapping. It is kept open while the mapping
// is made, so that its number cannot come to mean another device.
type source struct {
	file     *os.File
	path     string // as given
	dev      uint64 // number, as stat gives it
	size     uint64 // bytes
	readOnly bool
}

func (s *source) number() string { return fmt.Sprintf("%d:%d", unix.Major(s.dev), unix.Minor(s.dev)) }

// openSource opens the data device, through a loop device if it is a file. It
// refuses one that is mounted or mapped.
func (r *Request) openSource() (*source, error) {
	path := r.Device
	if r.File != nil {
		path = fmt.Sprintf("/proc/self/fd/%d", r.File.Fd())
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the data device %s: %w", r.Device, err)
	}
	s, err := sourceOf(f, r.Device, r.ReadOnly)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if s.file != f {
		_ = f.Close()
	}
	return s, nil
}

func sourceOf(f *os.File, path string, readOnly bool) (*source, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &source{file: f, path: path}
	switch kind := st.Mode(); {
	case kind.IsRegular():
		if s.file, err = attachLoop(f, path, readOnly); err != nil {
			return nil, err
		}
	case kind&os.ModeDevice != 0 && kind&os.ModeCharDevice == 0:
		if err := checkUnused(f, path); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s: %w: neither a block device nor a file", path, ErrDevice)
	}
	if err := s.measure(); err != nil {
		if s.file != f {
			_ = s.file.Close()
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// measure asks the block device for number, size and whether it can be written.
func (s *source) measure() error {
	fd := int(s.file.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	s.dev = st.Rdev
	size, err := s.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("asking for the size: %w", err)
	}
	s.size = uint64(size)
	ro, err := unix.IoctlGetUint32(fd, unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("asking whether it is read-only: %w", err)
	}
	s.readOnly = ro != 0
	return nil
}

// CheckUnused reports a block device that is mounted, mapped or part of another
// device, before anybody is asked for a key. Files are free.
//
// Errors: [ErrInUse], and those of opening the device.
func CheckUnused(device string) error {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeDevice == 0 {
		return err
	}
	return checkUnused(f, device)
}

// checkUnused opens a block device exclusively for a moment, which fails if it is
// mounted, swapped on or part of another device. Device-mapper alone would allow
// two mappings of one device.
func checkUnused(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	g, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EBUSY) {
		return &InUseError{Device: path, Name: mappingOn(st.Rdev)}
	}
	if err != nil {
		return fmt.Errorf("opening %s exclusively: %w", path, err)
	}
	return g.Close()
}

// sysfsFolder is the folder of a block device.
func sysfsFolder(dev uint64) string {
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
}

// mappingOn is the name of a mapping that lies on a block device, or empty.
func mappingOn(dev uint64) string {
	names, _ := filepath.Glob(sysfsFolder(dev) + "/holders/*/dm/name")
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil {
			return unmangle(strings.TrimSpace(string(b)))
		}
	}
	return ""
}

// fit computes the length of the mapping in sectors of 512 bytes.
func (s *source) fit(m *mapping) (sectors uint64, err error) {
	offset, size := m.Segment.Offset, m.Segment.Size
	if offset >= s.size {
		return 0, fmt.Errorf("%s: %w: the data begins at byte %d, but the device has only %d", s.path, ErrDevice, offset, s.size)
	}
	rest := s.size - offset
	if size == 0 {
		size = rest &^ 511
	}
	if size > rest {
		return 0, fmt.Errorf("%s: %w: the header wants %d bytes of data, after byte %d are only %d", s.path, ErrDevice, size, offset, rest)
	}
	if n := uint64(m.sectorSize()); size%n != 0 || size == 0 {
		return 0, fmt.Errorf("%s: %w: %d bytes of data are not a multiple of the sector size %d", s.path, ErrDevice, size, n)
	}
	return size / 512, nil
}

// passReadAhead gives the mapping the read-ahead of its device, if that is more
// than its own. Failing costs speed only.
func (s *source) passReadAhead(mapping *os.File) {
	want, err := unix.IoctlGetInt(int(s.file.Fd()), unix.BLKRAGET)
	if err != nil {
		return
	}
	if have, err := unix.IoctlGetInt(int(mapping.Fd()), unix.BLKRAGET); err == nil && have < want {
		_ = unix.IoctlSetInt(int(mapping.Fd()), unix.BLKRASET, want)
	}
}

// close lets go of the device. A loop device that no mapping took vanishes.
func (s *source) close() { _ = s.file.Close() }
