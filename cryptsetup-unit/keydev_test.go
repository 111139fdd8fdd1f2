package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// stick makes a disk with a file system that holds the file "key", a link that
// leads out, a program and a device node.
func stick(t *testing.T, name, fstype string) string {
	t.Helper()
	disk := loopDisk(t, name, 0)
	if fstype == "iso9660" {
		return disk
	}
	testenv.Run(t, "mount", "-t", fstype, disk, "/mnt")
	defer testenv.Run(t, "umount", "/mnt")
	if err := os.WriteFile("/mnt/key", []byte("the key"), 0o777); err != nil {
		t.Fatal(err)
	}
	if fstype == "ext4" {
		if err := os.Symlink("/etc/passwd", "/mnt/link"); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod("/mnt/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
			t.Fatal(err)
		}
	}
	return disk
}

func TestGuestMountKeyDevice(t *testing.T) {
	testenv.NeedGuest(t)
	for _, tt := range []struct{ image, fstype string }{{"ext4", "ext4"}, {"ext2", "ext4"}, {"fat16", "vfat"}, {"iso9660", "iso9660"}} {
		t.Run(tt.image, func(t *testing.T) {
			disk := stick(t, tt.image, tt.fstype)
			root, release, err := mountKeyDevice(t.Context(), disk)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(root, "key"))
			if want := map[bool]string{true: "x\n", false: "the key"}[tt.fstype == "iso9660"]; err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
			if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing: %v", err)
			}
			if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), disk) {
				t.Errorf("it is visible:\n%s", mounts)
			}
			if err := release(); err != nil {
				t.Error(err)
			}
			unused(t, disk)
		})
	}
}

// unused fails the test if something holds a device.
func unused(t *testing.T, device string) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Errorf("after unmounting: %v", err)
		return
	}
	_ = f.Close()
}

// TestGuestKeyDeviceThatIsMountedForWriting is read all the same, and not written.
func TestGuestKeyDeviceThatIsMountedForWriting(t *testing.T) {
	testenv.NeedGuest(t)
	disk := stick(t, "ext4", "ext4")
	testenv.Run(t, "mount", disk, "/mnt")
	defer testenv.Run(t, "umount", "/mnt")
	root, release, err := mountKeyDevice(t.Context(), disk)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "key")); err != nil || string(got) != "the key" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile("/mnt/new", nil, 0o600); err != nil {
		t.Errorf("the other mount: %v", err)
	}
}

func TestMountedAt(t *testing.T) {
	t.Parallel()
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(t.TempDir(), "mountinfo")
	write(t, table, []byte("29 1 1:5 / /else rw - ext4 /dev/zero rw\n30 1 1:3 / /stick\\040a ro,nosuid shared:3 - vfat /dev/null rw,fmask=0022\n31 1 1:3 / /later rw - vfat /dev/null ro\nshort\n"), 0o600)
	if place := mountedAt(table, "/dev/null"); place != `/stick\040a` {
		t.Errorf("%q", place)
	}
	if place := mountedAt(table, "/dev/full"); place != "" {
		t.Errorf("not mounted: %q", place)
	}
}

// TestUnknownFileSystemIsSaidInOneLine whatever was tried.
func TestUnknownFileSystemIsSaidInOneLine(t *testing.T) {
	t.Parallel()
	as := func(errs ...error) error {
		types := []string{"udf", "hfsplus", "exfat"}[:len(errs)]
		return unmountable(types, errs)
	}
	for want, err := range map[string]error{
		"it holds no file system that this kernel can mount (tried udf, hfsplus, exfat)": as(unix.EINVAL, unix.ENODEV, unix.EINVAL),
		"it holds udf, which this kernel does not know (module udf)":                     as(unix.ENODEV),
		"structure needs cleaning":   as(unix.EINVAL, unix.EUCLEAN),
		"it is mounted at /mnt in a": inUse("/mnt"),
	} {
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestGuestMountedKeyDeviceHasNoPowers(t *testing.T) {
	testenv.NeedGuest(t)
	root, release, err := mountKeyDevice(t.Context(), stick(t, "ext4", "ext4"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = release() }()
	if _, err := os.Open(filepath.Join(root, "zero")); !errors.Is(err, unix.EACCES) {
		t.Errorf("a device node: %v", err)
	}
	if err := exec.Command(filepath.Join(root, "key")).Run(); !errors.Is(err, unix.EACCES) {
		t.Errorf("a program: %v", err)
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if fd, err := unix.Openat2(dir, "link", &unix.OpenHow{Resolve: unix.RESOLVE_IN_ROOT}); !errors.Is(err, unix.ENOENT) {
		_ = unix.Close(fd)
		t.Errorf("a link that leads out: %v", err)
	}
}

func TestGuestMountKeyDeviceFails(t *testing.T) {
	testenv.NeedGuest(t)
	for _, image := range []string{"luks2", "raid1.2", "mbr"} {
		disk := loopDisk(t, image, 0)
		if root, _, err := mountKeyDevice(t.Context(), disk); err == nil {
			t.Errorf("%s is mounted at %s", image, root)
		}
		unused(t, disk)
	}
	for _, path := range []string{"/nonexistent", "/etc/passwd", "/dev/zero"} {
		if root, _, err := mountKeyDevice(t.Context(), path); err == nil {
			t.Errorf("%s is mounted at %s", path, root)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := mountKeyDevice(ctx, loopDisk(t, "ext4", 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
