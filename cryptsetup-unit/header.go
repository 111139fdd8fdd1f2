package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/luks2"
)

// findHeader returns the path of the detached header, "" without one. closeHeader
// releases what that takes.
func (at *attempt) findHeader(ctx context.Context) (string, error) {
	switch {
	case at.job.header.Path == "":
		return "", nil
	case at.job.header.Device != nil:
		return at.headerOnDevice(ctx, *at.job.header.Device)
	case strings.HasPrefix(at.job.header.Path, "/dev/"):
		return at.as.devices.await(ctx, "header device", at.deviceWait(), crypttab.LiteralDeviceRef(at.job.header.Path))
	}
	return at.job.header.Path, nil
}

// headerOnDevice mounts the device that has the header file and opens the file
// within it. The mount stays until closeHeader.
func (at *attempt) headerOnDevice(ctx context.Context, ref crypttab.DeviceRef) (string, error) {
	node, err := at.as.devices.await(ctx, "header device", at.deviceWait(), ref)
	if err != nil {
		return "", err
	}
	root, release, err := at.as.mount(ctx, node)
	if err != nil {
		return "", fmt.Errorf("mounting %s: %w", node, err)
	}
	f, err := openBelow(root, at.job.header.Path, unix.O_RDONLY)
	if err != nil {
		_ = release()
		return "", fmt.Errorf("opening header %s on %s: %w", at.job.header.Path, ref, err)
	}
	at.headerOn = sysfsFolder(node)
	at.closeHeader = func() {
		_ = f.Close()
		if err := release(); err != nil {
			at.warn(fmt.Sprintf("unmounting %s: %v", node, err))
		}
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd()), nil
}

// sysfsFolder is there as long as the block device of a node is, "" for anything else.
func sysfsFolder(node string) string {
	var st unix.Stat_t
	if unix.Stat(node, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// headerPresent reports that the device with the header's file went away.
func (at *attempt) headerPresent() error {
	if at.headerOn == "" || unix.Access(at.headerOn, unix.F_OK) != unix.ENOENT {
		return nil
	}
	return fmt.Errorf("header device %s: %w", at.job.header.Device, luks2.ErrGone)
}

// openBelow opens a path as if root were the root of the file system, so that no
// link leads out of it.
func openBelow(root, path string, flags uint64) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
