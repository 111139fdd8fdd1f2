package dmcrypt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// loopControlMinor is LOOP_CTRL_MINOR of <linux/miscdevice.h>.
const loopControlMinor = 237

// attachLoop makes a block device of a file and returns it open. The kernel
// dissolves it when nobody has it open any more (LO_FLAGS_AUTOCLEAR): when the
// mapping on it is removed, or at once if there never was one.
func attachLoop(image *os.File, path string, readOnly bool) (*os.File, error) {
	if err := checkImageUnused(image, path); err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	backing := image
	if !readOnly {
		// A file that may not be written gives a read-only device.
		if f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", image.Fd()), os.O_RDWR, 0); err == nil {
			defer f.Close()
			backing = f
		}
	}
	if backing == image {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	config.Fd = uint32(backing.Fd())
	copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
	control, err := openMisc("/dev/loop-control", "loop-control", loopControlMinor)
	if err != nil {
		return nil, fmt.Errorf("%w: this kernel has no loop devices (module loop): %w", ErrUnsupported, err)
	}
	defer control.Close()
	for range 64 { // another process may take the free one first
		loop, err := configureFreeLoop(control, &config)
		if !errors.Is(err, unix.EBUSY) {
			return loop, err
		}
	}
	return nil, fmt.Errorf("attaching %s to a loop device: %w", path, unix.EBUSY)
}

func configureFreeLoop(control *os.File, config *unix.LoopConfig) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("asking for a free loop device: %w", err)
	}
	loop, err := openLoop(n)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), config); err != nil {
		_ = loop.Close()
		return nil, fmt.Errorf("attaching a file to %s: %w", loop.Name(), err)
	}
	return loop, nil
}

// openLoop opens /dev/loopN. devtmpfs makes it; where /dev is something else, it
// is made here.
func openLoop(n int) (*os.File, error) {
	const loopMajor = 7
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("making %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// checkImageUnused refuses a file that another loop device has and something
// holds: two mappings of one file would destroy it, and the kernel allows it.
func checkImageUnused(image *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return err
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		block := filepath.Dir(filepath.Dir(l))
		f, err := os.Open("/dev/" + filepath.Base(block))
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		_ = f.Close()
		if err != nil || info.Device != st.Dev || info.Inode != st.Ino {
			continue
		}
		if dev, err := blockNumber(block); err == nil {
			if name := mappingOn(dev); name != "" {
				return &InUseError{Device: path, Name: name}
			}
		}
	}
	return nil
}

// blockNumber reads the number of a block device from its folder in sysfs.
func blockNumber(folder string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(folder, "dev"))
	if err != nil {
		return 0, err
	}
	return parseNumber(strings.TrimSpace(string(b)))
}

// parseNumber reads major:minor.
func parseNumber(s string) (uint64, error) {
	before, after, _ := strings.Cut(s, ":")
	major, err := strconv.ParseUint(before, 10, 32)
	minor, err2 := strconv.ParseUint(after, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return 0, fmt.Errorf("device number %q: %w", s, err)
	}
	return unix.Mkdev(uint32(major), uint32(minor)), nil
}
