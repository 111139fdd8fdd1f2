package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errNoDefaultDevice is returned when no DEVICE was named and the file system of
// /var and / is not on a LUKS2 volume that can be found.
var errNoDefaultDevice = errors.New("no device named, and neither /var nor / is on a LUKS2 volume")

// maxStack bounds how many device-mapper layers (LVM on LUKS, …) are descended.
const maxStack = 16

// blockTree finds the LUKS2 device behind a directory. The roots are fields so
// that tests can bring their own sysfs.
type blockTree struct {
	sys       string // "/sys"
	dev       string // "/dev"
	mountinfo string // "/proc/self/mountinfo"
}

var hostTree = blockTree{sys: "/sys", dev: "/dev", mountinfo: "/proc/self/mountinfo"}

// defaultDevice is the LUKS2 device behind /var or, if that is not on one, behind
// /, as in systemd-cryptenroll since 256.
func (b blockTree) defaultDevice() (string, error) {
	for _, dir := range []string{"/var", "/"} {
		if dev, err := b.luksBehind(dir); err == nil {
			return dev, nil
		}
	}
	return "", errNoDefaultDevice
}

// luksBehind descends from the file system of dir through the device-mapper stack
// to the device below the first LUKS2 mapping.
func (b blockTree) luksBehind(dir string) (string, error) {
	number, err := b.numberOf(dir)
	if err != nil {
		return "", err
	}
	node := filepath.Join(b.sys, "dev/block", number)
	for range maxStack {
		uuid, err := os.ReadFile(filepath.Join(node, "dm/uuid"))
		isLUKS := err == nil && strings.HasPrefix(string(uuid), "CRYPT-LUKS2-")
		below, err := os.ReadDir(filepath.Join(node, "slaves"))
		if err != nil || len(below) == 0 {
			return "", fmt.Errorf("%s: %w", dir, errNoDefaultDevice)
		}
		if isLUKS {
			return filepath.Join(b.dev, below[0].Name()), nil
		}
		if len(below) > 1 {
			return "", fmt.Errorf("%s is on several devices (%s and more): name the one that is meant", dir, below[0].Name())
		}
		node = filepath.Join(b.sys, "class/block", below[0].Name())
	}
	return "", fmt.Errorf("%s: more than %d layers of devices", dir, maxStack)
}

// numberOf returns MAJOR:MINOR of the block device that dir's file system is on.
// File systems such as btrfs have an anonymous number; for them the source of the
// mount counts.
func (b blockTree) numberOf(dir string) (string, error) {
	f, err := os.Open(b.mountinfo)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var number, source, best string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		m, ok := parseMount(sc.Text())
		if ok && within(dir, m.point) && len(m.point) >= len(best) {
			best, number, source = m.point, m.number, m.source
		}
	}
	if best == "" {
		return "", fmt.Errorf("%s: no mount found: %w", dir, errNoDefaultDevice)
	}
	if !strings.HasPrefix(number, "0:") {
		return number, nil
	}
	return b.numberOfNode(source)
}

type mount struct{ number, point, source string }

// parseMount reads one line of /proc/PID/mountinfo (proc(5)).
func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	a, b := strings.Fields(left), strings.Fields(right)
	if !ok || len(a) < 5 || len(b) < 2 {
		return mount{}, false
	}
	return mount{number: a[2], point: unescapeOctal(a[4]), source: unescapeOctal(b[1])}, true
}

// unescapeOctal undoes the kernel's \040 spelling of blanks in mountinfo.
func unescapeOctal(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// within reports whether dir is point or lies below it.
func within(dir, point string) bool {
	return point == "/" || dir == point || strings.HasPrefix(dir, path.Clean(point)+"/")
}

// numberOfNode returns MAJOR:MINOR of a device node.
func (b blockTree) numberOfNode(node string) (string, error) {
	if number, err := os.ReadFile(filepath.Join(b.sys, "class/block", filepath.Base(node), "dev")); err == nil {
		return strings.TrimSpace(string(number)), nil
	}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: node, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is not a block device: %w", node, errNoDefaultDevice)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// mappingsOf returns the names of the active mappings on a device, sorted by the
// kernel's directory order; none for image files and inactive volumes.
func (b blockTree) mappingsOf(device string) []string {
	number, err := b.numberOfNode(device)
	if err != nil {
		return nil
	}
	holders, _ := os.ReadDir(filepath.Join(b.sys, "dev/block", number, "holders"))
	var names []string
	for _, h := range holders {
		dm := filepath.Join(b.sys, "class/block", h.Name(), "dm")
		uuid, _ := os.ReadFile(filepath.Join(dm, "uuid"))
		name, err := os.ReadFile(filepath.Join(dm, "name"))
		if err == nil && strings.HasPrefix(string(uuid), "CRYPT-LUKS2-") {
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	return names
}
