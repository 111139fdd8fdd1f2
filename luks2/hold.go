package luks2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hold keeps the devices of a volume open. As long as it does, a block device's
// number, and for most drivers its name, cannot come to mean another disk.
type hold struct {
	header, data *held // the same one unless the header is detached
}

// held is one open device or image file.
type held struct {
	file  *os.File
	block bool
	rdev  uint64 // of a block device
	disk  uint64 // number of the disk or medium, which the kernel gives out once; 0: too old a kernel
}

func newHold(path, header string) (*hold, error) {
	data, err := newHeld(path)
	if err != nil {
		return nil, err
	}
	if header == path {
		return &hold{data, data}, nil
	}
	h, err := newHeld(header)
	if err != nil {
		data.close()
		return nil, err
	}
	return &hold{h, data}, nil
}

func newHeld(path string) (*held, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	h := &held{file: f}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		h.close()
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		h.block, h.rdev = true, st.Rdev
		h.disk = diskSequence(f)
	}
	return h, nil
}

func (h *held) close() { _ = h.file.Close() }

func (h *hold) close() {
	h.data.close()
	if h.header != h.data {
		h.header.close()
	}
}

// diskSequence tells one medium from the next one in the same drive, and a loop
// device from itself with another file; 0 if the kernel does not (before 5.15).
func diskSequence(f *os.File) uint64 {
	var n uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETDISKSEQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return n
}

// present reports a device that went away or has another medium: ErrGone.
func (h *held) present() error {
	if !h.block {
		return nil
	}
	folder := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(h.rdev), unix.Minor(h.rdev))
	if unix.Access(folder, unix.F_OK) == unix.ENOENT && unix.Access("/sys/dev/block", unix.F_OK) == nil {
		return fmt.Errorf("%s: %w", h.file.Name(), ErrGone)
	}
	if diskSequence(h.file) != h.disk {
		return fmt.Errorf("%s: %w", h.file.Name(), ErrGone)
	}
	return nil
}

// path opens the same device again, whatever its name means by now.
func (h *held) path() string { return fmt.Sprintf("/proc/self/fd/%d", h.file.Fd()) }

// Present reports, for a Device opened with OpenOptions.Hold, whether its devices
// are still there: [ErrGone] if not. It reads nothing from them and may be called
// often. An image file is always there. Without Hold it returns nil.
func (d *Device) Present() error {
	if d.hold == nil {
		return nil
	}
	err := d.hold.data.present()
	if d.hold.header != d.hold.data {
		err = errors.Join(d.hold.header.present(), err)
	}
	return err
}

// OpenData opens the data device for reading, and OpenHeader the header device,
// which is the same unless the header is detached: the held ones of
// OpenOptions.Hold, whatever their paths mean by now. Mapping what OpenData gives
// maps what the key was read from. The file is all of it, whatever
// OpenOptions.Window says. The caller closes it. Errors: [ErrGone], and those of open.
func (d *Device) OpenData() (*os.File, error) {
	if d.hold == nil {
		return openNamed(d.path, d.path)
	}
	f, err := openNamed(d.hold.data.path(), d.path)
	return f, d.gone(err)
}

// OpenHeader is described at [Device.OpenData].
func (d *Device) OpenHeader() (*os.File, error) {
	if d.hold == nil {
		return openNamed(d.header, d.header)
	}
	f, err := openNamed(d.hold.header.path(), d.header)
	return f, d.gone(err)
}

// openNamed opens a path for reading; the file and its errors bear another name.
func openNamed(path, name string) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Confirm reads the header again and reports whether it is still the volume that
// h describes and the one that key was found on: [ErrChanged] if not, [ErrGone] if
// the device went away. Keyslots and tokens may have changed meanwhile. Whoever
// maps a volume calls it once the kernel holds the data device.
func (d *Device) Confirm(ctx context.Context, h *Header, key *VolumeKey) error {
	s, l, err := d.beginReading(ctx)
	if err != nil {
		return err
	}
	s.end()
	digest, ok := l.own().Digest(key.Digest)
	if now := l.identity(); now != h.identity || now != key.of || !ok || digest.sum() != key.by {
		return fmt.Errorf("checking %s: %w", d.header, ErrChanged)
	}
	return d.Present()
}

// open opens the header device for a session.
func (d *Device) open(write bool) (*deviceFile, error) {
	path := d.header
	if d.hold != nil {
		if err := d.Present(); err != nil {
			return nil, err
		}
		path = d.hold.header.path()
	}
	f, err := openDevice(path, d.header, write)
	if err != nil {
		return nil, d.gone(err)
	}
	if err := f.narrow(d.window); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// gone adds ErrGone to an error that has it as its cause.
func (d *Device) gone(err error) error {
	if err == nil {
		return nil
	}
	if lost := d.Present(); lost != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("%w: %w", lost, err)
	}
	return err
}
