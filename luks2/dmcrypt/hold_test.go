package dmcrypt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// hold opens a volume to keep it, and reads its header.
func hold(t *testing.T, device string) *luks2.Device {
	t.Helper()
	d, err := luks2.Open(device, &luks2.OpenOptions{Hold: true, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if _, err := d.Header(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Present(); err != nil {
		t.Fatal(err)
	}
	return d
}

// scsiDisk is a disk that can be pulled out.
func scsiDisk(t *testing.T) (node string) {
	t.Helper()
	testenv.NeedGuest(t)
	testenv.Run(t, "modprobe", "scsi_debug", "dev_size_mb=32", "removable=1")
	const adapter = "/sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/"
	scan, _ := filepath.Glob(adapter + "scsi_host/host*/scan")
	if len(scan) != 1 || os.WriteFile(scan[0], []byte("- - -"), 0o200) != nil { // one that was pulled before
		t.Fatalf("no adapter: %v", scan)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		disks, _ := filepath.Glob(adapter + "target*/*:0/block/*")
		if len(disks) == 1 {
			node = "/dev/" + filepath.Base(disks[0])
			if _, err := os.Stat(node); err == nil {
				return node
			}
		}
	}
	t.Fatal("scsi_debug makes no disk")
	return ""
}

// TestGuestPulledDiskIsGone, though its number cannot be given to another one,
// and nothing is mapped.
func TestGuestPulledDiskIsGone(t *testing.T) {
	disk := scsiDisk(t)
	v := format(t, disk, "luks2-512")
	d := hold(t, disk)
	f, err := d.OpenData()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile("/sys/block/"+filepath.Base(disk)+"/device/delete", []byte("1"), 0o200); err != nil {
		t.Fatal(err)
	}
	if err := d.Present(); !errors.Is(err, luks2.ErrGone) {
		t.Errorf("present: %v", err)
	}
	if _, err := d.Header(t.Context()); !errors.Is(err, luks2.ErrGone) {
		t.Errorf("header: %v", err)
	}
	r := v.request("vol")
	r.File = f
	if err := Attach(t.Context(), r); err == nil {
		t.Error("a disk that is gone was mapped")
	}
	nothingMapped(t)
	_ = f.Close()
	_ = d.Close()
}

// TestGuestExchangedMediumIsNoticed where number and name stay the same: a loop
// device with another file is one, as a card reader with another card.
func TestGuestExchangedMediumIsNoticed(t *testing.T) {
	testenv.NeedGuest(t)
	testenv.Run(t, "modprobe", "loop")
	image, other := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "other")
	for path, name := range map[string]string{image: "luks2-512", other: "luks2-other"} {
		if err := os.WriteFile(path, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		format(t, path, name)
	}
	loop := strings.TrimSpace(testenv.Run(t, "busybox", "losetup", "-f"))
	testenv.Run(t, "busybox", "losetup", "-r", loop, image)
	defer testenv.Run(t, "busybox", "losetup", "-d", loop)
	d := hold(t, loop)
	changeMedium(t, loop, other)
	if err := d.Present(); !errors.Is(err, luks2.ErrGone) {
		t.Errorf("present: %v", err)
	}
	if _, err := d.Header(t.Context()); !errors.Is(err, luks2.ErrGone) {
		t.Errorf("header: %v", err)
	}
	_ = d.Close()
}

// loopChangeFD is LOOP_CHANGE_FD of <linux/loop.h>.
const loopChangeFD = 0x4C06

func changeMedium(t *testing.T, loop, path string) {
	t.Helper()
	device, err := os.Open(loop)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	medium, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer medium.Close()
	if err := unix.IoctlSetInt(int(device.Fd()), loopChangeFD, int(medium.Fd())); err != nil {
		t.Fatal(err)
	}
}

// TestGuestHeldDeviceIsWhatGetsMapped, not what its path means by now.
func TestGuestHeldDeviceIsWhatGetsMapped(t *testing.T) {
	disk, wrong := ramDisk(t), ramDisk(t)
	v := format(t, disk, "luks2-512")
	path := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(disk, path); err != nil {
		t.Fatal(err)
	}
	d := hold(t, path)
	f, err := d.OpenData()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(os.Remove(path), os.Symlink(wrong, path)); err != nil {
		t.Fatal(err)
	}
	r := v.request("vol")
	r.Device, r.File = path, f
	attach(t, r)
	if i, err := Status("vol"); err != nil || i.Source != disk {
		t.Errorf("mapped is %+v, %v", i, err)
	}
}

// TestGuestUnconfirmedMappingIsTakenBack: the key and the device no longer belong
// together.
func TestGuestUnconfirmedMappingIsTakenBack(t *testing.T) {
	v := format(t, ramDisk(t), "luks2-512")
	r := v.request("vol")
	asked := 0
	r.Confirm = func(context.Context) error {
		asked++
		if i, err := Status("vol"); err != nil || i.Source != "" {
			t.Errorf("asked with a mapping that can be read: %+v, %v", i, err)
		}
		return luks2.ErrChanged
	}
	if err := Attach(t.Context(), r); !errors.Is(err, luks2.ErrChanged) || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	nothingMapped(t)
}
