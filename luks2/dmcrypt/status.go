package dmcrypt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anatol/devmapper.go"
	"golang.org/x/sys/unix"
)

// Info describes an active mapping.
type Info struct {
	Name       string // mapping name, not mangled
	Node       string // /dev/mapper/…
	UUID       string // of the mapping: CRYPT-LUKS2-…
	Type       string // from the UUID: LUKS2, LUKS1, PLAIN …
	VolumeUUID string // with dashes; empty for types that have none
	Source     string // block device below, such as /dev/sda2; empty: there is no table
	Image      string // the file, if Source is a loop device
	Cipher     string
	KeySize    int    // bytes
	KeyName    string // of the key in the kernel; empty: the table has the key itself
	Offset     uint64 // bytes from the start of Source
	Size       uint64 // bytes
	IVTweak    uint64 // sectors of 512 bytes
	SectorSize int
	Flags      Flags
	ReadOnly   bool
	Suspended  bool
	Open       int  // how often the mapping is open or mounted
	Doomed     bool // it vanishes when it is closed for the last time

	dev, sourceDev uint64
}

// Status describes the mapping of that name. Errors: [ErrNotActive],
// [ErrNotCrypt], [ErrName], [ErrUnsupported].
func Status(name string) (*Info, error) {
	m, err := kernelName(name)
	if err != nil {
		return nil, err
	}
	d, err := lookUp(m)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(d.UUID, "CRYPT-") {
		return nil, fmt.Errorf("%q: %w", name, ErrNotCrypt)
	}
	i := &Info{
		Name: unmangle(d.Name), Node: nodePath(d.Name), UUID: d.UUID, Open: int(d.OpenCount), dev: d.DevNo,
		ReadOnly: d.Flags&unix.DM_READONLY_FLAG != 0, Suspended: d.Flags&unix.DM_SUSPEND_FLAG != 0, Doomed: d.Flags&unix.DM_DEFERRED_REMOVE != 0,
	}
	if parts := strings.SplitN(d.UUID, "-", 4); len(parts) > 2 {
		i.Type, i.VolumeUUID = parts[1], volumeUUID(parts[2])
	}
	if d.Flags&unix.DM_ACTIVE_PRESENT_FLAG == 0 {
		return i, nil
	}
	return i, i.readTable(m)
}

// Names lists the mappings of LUKS volumes by name, in alphabetical order. Without
// device-mapper there are none.
func Names() ([]string, error) {
	control, err := openControl()
	if errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_ = control.Close()
	all, err := devmapper.List()
	if err != nil {
		return nil, fmt.Errorf("listing mappings: %w", err)
	}
	var names []string
	for _, m := range all {
		d, err := lookUp(m.Name)
		if errors.Is(err, ErrNotActive) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(d.UUID, "CRYPT-LUKS") {
			names = append(names, unmangle(d.Name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// readTable fills in what the table says.
func (i *Info) readTable(mangled string) error {
	kind, sectors, params, err := tableStatus(mangled)
	if err != nil {
		return err
	}
	defer params.Wipe()
	if kind == "" {
		return fmt.Errorf("%q: %w: its table is not that of one volume", i.Name, ErrNotCrypt)
	}
	if kind != "crypt" {
		return fmt.Errorf("%q: %w: its target is %q", i.Name, ErrNotCrypt, kind)
	}
	t, err := parseTable(params.Bytes())
	if err != nil {
		return fmt.Errorf("mapping %q: %w", i.Name, err)
	}
	if i.sourceDev, err = parseNumber(t.device); err != nil {
		return fmt.Errorf("mapping %q: %w", i.Name, err)
	}
	i.Source, i.Image = deviceName(i.sourceDev)
	i.Cipher, i.KeySize, i.KeyName = t.cipher, t.keySize, t.key
	i.Offset, i.Size, i.IVTweak = t.offset*512, sectors*512, t.ivTweak
	i.SectorSize, i.Flags = t.sectorSize(), t.flags()
	return nil
}

// deviceName is the node of a block device and, for a loop device, its file.
func deviceName(dev uint64) (node, image string) {
	folder := sysfsFolder(dev)
	node = fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	if target, err := os.Readlink(folder); err == nil {
		node = "/dev/" + strings.ReplaceAll(filepath.Base(target), "!", "/")
	}
	if b, err := os.ReadFile(folder + "/loop/backing_file"); err == nil {
		image = strings.TrimSuffix(string(b), "\n")
	}
	return node, image
}

// over reports whether the mapping lies on a device or file.
func (i *Info) over(device string) bool {
	var st unix.Stat_t
	if unix.Stat(device, &st) != nil {
		return false
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return st.Rdev == i.sourceDev
	}
	f, err := os.Open(i.Source)
	if err != nil {
		return false
	}
	defer f.Close()
	loop, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	return err == nil && loop.Device == st.Dev && loop.Inode == st.Ino
}
