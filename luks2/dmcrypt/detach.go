package dmcrypt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/anatol/devmapper.go"
	"golang.org/x/sys/unix"
)

// DetachOptions are the choices of [Detach]. The zero value is usual.
type DetachOptions struct {
	// Deferred leaves a mapping that is mounted or open to the kernel, which
	// removes it with its last user, rather than fail with [ErrBusy].
	Deferred bool
}

// Detach takes a mapping away: one that Attach made, or cryptsetup. Where the
// volume has dm-integrity below, that goes too. It reports whether the removal was
// left to the kernel (DetachOptions.Deferred).
//
// Errors: [ErrNotActive], [ErrBusy], [ErrNotCrypt], [ErrName], [ErrUnsupported],
// the context's.
func Detach(ctx context.Context, name string, o *DetachOptions) (deferred bool, err error) {
	if o == nil {
		o = &DetachOptions{}
	}
	info, err := Status(name)
	if err != nil {
		return false, err
	}
	mangled, err := kernelName(name)
	if err != nil {
		return false, err
	}
	below := info.integrityBelow()
	deferred, err = remove(ctx, mangled, 0)
	if errors.Is(err, ErrBusy) && o.Deferred {
		deferred, err = remove(ctx, mangled, unix.DM_DEFERRED_REMOVE)
	}
	if err != nil || below == "" {
		return deferred, err
	}
	var flags uint32
	if deferred {
		flags = unix.DM_DEFERRED_REMOVE
	}
	if _, err := remove(ctx, below, flags); err != nil && !errors.Is(err, ErrNotActive) {
		return deferred, err
	}
	return deferred, nil
}

// integrityBelow is the mangled name of the dm-integrity mapping that belongs to
// a LUKS2 mapping, or empty.
func (i *Info) integrityBelow() string {
	if i.sourceDev == 0 || i.Type != string(LUKS2) {
		return ""
	}
	d, err := devmapper.InfoByDevno(i.sourceDev)
	if err != nil {
		return ""
	}
	volume := strings.ReplaceAll(i.VolumeUUID, "-", "")
	if strings.HasPrefix(d.UUID, "CRYPT-SUBDEV-"+volume+"-") || strings.HasPrefix(d.UUID, "CRYPT-INTEGRITY-"+volume+"-") {
		return d.Name
	}
	return ""
}

// How long a mapping is tried again that is busy without being mounted or mapped:
// udev or blkid looks at it. As libdevmapper's dm_task_retry_remove.
const (
	removeTries = 25
	removePause = 200 * time.Millisecond
)

// remove removes a mapping by its mangled name, and its node.
func remove(ctx context.Context, name string, flags uint32) (deferred bool, err error) {
	info, err := lookUp(name)
	if err != nil {
		return false, err
	}
	for try := 1; ; try++ {
		deferred, err = removeOnce(ctx, name, flags)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		if try == removeTries || inUse(info.DevNo) {
			return false, fmt.Errorf("%q: %w", unmangle(name), ErrBusy)
		}
		if err := sleep(ctx, removePause); err != nil {
			return false, err
		}
	}
	if errors.Is(err, unix.ENXIO) {
		err = nil // somebody else was faster
	}
	if err != nil {
		return false, fmt.Errorf("removing the mapping %q: %w", unmangle(name), err)
	}
	removeNode(name, info.DevNo)
	return deferred, nil
}

func removeOnce(ctx context.Context, name string, flags uint32) (deferred bool, err error) {
	c, _ := newCookie() // without one udev learns of it a moment later
	a, err := (&call{name: name, flags: flags, event: c.event}).do(unix.DM_DEV_REMOVE)
	// The mapping is gone; not waiting for udev to the end changes nothing.
	_ = c.wait(ctx, a)
	return err == nil && a.Flags&unix.DM_DEFERRED_REMOVE != 0, err
}

// inUse reports whether a block device is mounted or has another one on top.
func inUse(dev uint64) bool {
	if h, _ := filepath.Glob(sysfsFolder(dev) + "/holders/*"); len(h) > 0 {
		return true
	}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for line := range strings.Lines(string(b)) {
		mount, fs, _ := strings.Cut(line, " - ")
		if f := strings.Fields(mount); len(f) > 2 && f[2] == number {
			return true
		}
		// btrfs has a number of its own; its source is the device.
		if f := strings.Fields(fs); len(f) > 1 && strings.HasPrefix(f[1], "/dev/") && isDevice(f[1], dev) {
			return true
		}
	}
	return false
}
