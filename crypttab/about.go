package crypttab

import (
	"os"
	"strings"
	"syscall"
)

// IsAbout reports whether the entry is about a volume: its device is named by the UUID of
// the volume's header, or is one of the devices by any name that leads there now (a link
// of udev, a path of device-mapper). "" for a UUID or device that is not known.
func (e *Entry) IsAbout(uuid string, devices ...string) bool {
	ref := e.Source
	if ref.Tag == TagPath {
		if name, ok := strings.CutPrefix(ref.Value, "/dev/disk/by-uuid/"); ok && uuid != "" && strings.EqualFold(name, uuid) {
			return true
		}
	}
	if ref.Tag == TagUUID && uuid != "" && strings.EqualFold(ref.Value, uuid) {
		return true
	}
	for _, link := range ref.UdevLinks() {
		for _, device := range devices {
			if device != "" && sameDevice(link, device) {
				return true
			}
		}
	}
	return false
}

// sameDevice reports whether two paths lead to one file or one block device.
func sameDevice(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	if err != nil {
		return false
	}
	if os.SameFile(x, y) {
		return true
	}
	p, q := x.Sys().(*syscall.Stat_t), y.Sys().(*syscall.Stat_t)
	return x.Mode()&os.ModeDevice != 0 && x.Mode().Type() == y.Mode().Type() && p.Rdev == q.Rdev
}
