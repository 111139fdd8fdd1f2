package main

import (
	"bufio"
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
		fd, err := mountDetached(device, t)
		if err == nil {
			return fmt.Sprintf("/proc/self/fd/%d", fd), func() error { return unix.Close(fd) }, nil
		}
		failed = append(failed, fmt.Errorf("as %s: %w", t, err))
	}
	return "", nil, errors.Join(failed...)
}

// fileSystems are the types to try: that of the superblock, or all that the kernel
// has now for block devices.
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
	f, err := os.Open("/proc/filesystems")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, ok := strings.CutPrefix(sc.Text(), "\t"); ok { // others have "nodev" before it
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it holds no file system that is known here")
	}
	return list, nil
}

// mountDetached mounts without a place (fsopen(2), fsmount(2): Linux 5.2) and
// returns a descriptor of the root folder.
func mountDetached(device, fstype string) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	err = unix.FsconfigSetString(fs, "source", device)
	if err == nil {
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
