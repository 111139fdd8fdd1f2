package dmcrypt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func nodePath(mangled string) string { return filepath.Join(nodeFolder, mangled) }

// nodeLimit is how long a node is left to a udevd that could not be waited for by
// cookie: it would stumble over one that we make.
const nodeLimit = 5 * time.Second

func awaitNode(ctx context.Context, mangled string, dev uint64) {
	for end := time.Now().Add(nodeLimit); !isDevice(nodePath(mangled), dev) && time.Now().Before(end) && udevWorks(); {
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// ensureNode makes /dev/mapper/NAME unless udev has made it, and says so to a
// udevd that may start later.
func (m *mapping) ensureNode(dev uint64) error {
	path := nodePath(m.name)
	if isDevice(path, dev) {
		return nil
	}
	// What is there belongs to an earlier mapping of this name.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a stale node: %w", err)
	}
	// Unlike Debian's libdevmapper (0660 for group disk), root alone may read the
	// plain text.
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(dev)); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	if !udevWorks() {
		// Where /run cannot be written no udevd will start either.
		m.warn(writeUdevRecord(dev))
	}
	return nil
}

// isDevice reports whether a path leads to the block device.
func isDevice(path string, dev uint64) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == dev
}

// removeNode removes what is still there of a mapping that is gone: the node that
// we made, or the link of a udevd that has ended since.
func removeNode(mangled string, dev uint64) {
	path := nodePath(mangled)
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		ours := st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == dev
		orphan := st.Mode&unix.S_IFMT == unix.S_IFLNK && !udevWorks()
		if ours || orphan {
			_ = os.Remove(path)
		}
	}
	if record := udevRecord(dev); contentIs(record, udevRecordText) {
		_ = os.Remove(record)
	}
}

// udevRecordText tells the rules of device-mapper that the mapping is complete.
// A udevd that starts after us, in the real root, sees only an "add" event that
// it was told about too late; without the record it ignores the mapping, no link
// appears, and systemd waits for /dev/mapper/NAME until it gives up
// (10-dm.rules: DM_UDEV_PRIMARY_SOURCE_FLAG).
const udevRecordText = "E:DM_UDEV_PRIMARY_SOURCE_FLAG=1\n"

func udevRecord(dev uint64) string {
	return fmt.Sprintf("/run/udev/data/b%d:%d", unix.Major(dev), unix.Minor(dev))
}

func writeUdevRecord(dev uint64) error {
	record := udevRecord(dev)
	if err := os.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		return fmt.Errorf("telling a later udevd about the mapping: %w", err)
	}
	if err := os.WriteFile(record, []byte(udevRecordText), 0o644); err != nil {
		return fmt.Errorf("telling a later udevd about the mapping: %w", err)
	}
	return nil
}

func contentIs(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && string(b) == text
}
