package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"luksmith/internal/probe"
)

// mountKeyDevice mounts the file system of a block device read-only, without
// devices, set-user-ID bits and programs. root is the path of its root folder;
// release unmounts it.
//
// The mount has no place in any folder: it hangs on a file descriptor, which only
// this process has. So nobody else comes upon it, and it ends with the process,
// however that ends.
func mountKeyDevice(ctx context.Context, device string) (root string, release func() error, err error) {
	types, err := fileSystems(device)
	if err != nil {
		return "", nil, err
	}
	var failed []error
	for _, t := range types {
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		fd, err := mountDetached(device, t, true)
		place := ""
		if errors.Is(err, unix.EBUSY) {
			place = mountedAt(mountTable, device)
		}
		if place != "" { // for writing: the kernel shares it only with mounts that do not rule that out
			fd, err = mountDetached(device, t, false)
		}
		switch {
		case err == nil:
			return fmt.Sprintf("/proc/self/fd/%d", fd), func() error { return unix.Close(fd) }, nil
		case errors.Is(err, unix.EBUSY):
			return "", nil, busyError{inUse(place)}
		}
		failed = append(failed, fmt.Errorf("as %s: %w", t, err))
	}
	return "", nil, unmountable(types, failed)
}

// mountTable is what the kernel says about mounts.
const mountTable = "/proc/self/mountinfo"

// mountedAt is the first place where a device is mounted, "" if it is not
// (proc_pid_mountinfo(5)).
func mountedAt(table, device string) string {
	var st unix.Stat_t
	b, err := os.ReadFile(table)
	if err != nil || unix.Stat(device, &st) != nil {
		return ""
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == number {
			return fields[4]
		}
	}
	return ""
}

// inUse is the error about a device that something else has.
func inUse(place string) error {
	if place == "" {
		return errors.New("another program has it: it is mapped, or part of another device")
	}
	return fmt.Errorf("it is mounted at %s in a way that cannot be shared", place)
}

// unmountable is one error for all types that were tried.
func unmountable(types []string, failed []error) error {
	if len(types) == 1 {
		if errors.Is(failed[0], unix.ENODEV) {
			return fmt.Errorf("it holds %s, which this kernel does not know (module %s)", types[0], types[0])
		}
		return failed[0]
	}
	for i, err := range failed {
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
			return failed[i] // it is of this type, but broken
		}
	}
	return fmt.Errorf("it holds no file system that this kernel can mount (tried %s)", strings.Join(types, ", "))
}

// fileSystems are the types to try: that of the superblock, or the usual ones and all
// that the kernel has now for block devices.
func fileSystems(device string) ([]string, error) {
	d := openBlock(device)
	if d == nil {
		return nil, fmt.Errorf("%s is not a block device that can be read", device)
	}
	defer d.Close()
	size, err := d.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	id, err := probe.Superblock(d, size)
	switch {
	case err == nil && slices.Contains([]string{probe.LUKS, probe.RAID, probe.LVM}, id.Type):
		return nil, fmt.Errorf("it holds no file system but %s", id.Type)
	case err == nil && id.Type == "ntfs":
		return []string{"ntfs3", "ntfs"}, nil
	case err == nil && id.Type == "ext4":
		return []string{"ext4", "ext3", "ext2"}, nil // a kernel may have the old drivers
	case err == nil:
		return []string{id.Type}, nil
	case !errors.Is(err, probe.ErrUnknown):
		return nil, err
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return nil, err
	}
	list := slices.Clone(usualTypes)
	for line := range strings.Lines(string(known)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "nodev"); !ok && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

// usualTypes are tried where the superblock is not known: the kernel loads the module.
var usualTypes = []string{"udf", "hfsplus"}

// mountDetached mounts without a place (fsopen(2), fsmount(2): Linux 5.2) and
// returns a descriptor of the root folder. Without superReadOnly the file system may be
// one that is mounted for writing elsewhere; this mount is read-only all the same.
func mountDetached(device, fstype string, superReadOnly bool) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	err = unix.FsconfigSetString(fs, "source", device)
	if err == nil && superReadOnly {
		err = unix.FsconfigSetFlag(fs, "ro")
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return -1, withReason(fs, err)
	}
	const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, withReason(fs, err)
	}
	return fd, nil
}

// withReason adds what the file system wrote about an error: "e ext4: …".
func withReason(fs int, err error) error {
	b := make([]byte, 1024)
	n, rerr := unix.Read(fs, b)
	if rerr != nil || n == 0 {
		return err
	}
	return fmt.Errorf("%w (%q)", err, strings.TrimPrefix(strings.TrimSpace(string(b[:n])), "e "))
}
