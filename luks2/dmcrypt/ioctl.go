package dmcrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// Of <linux/dm-ioctl.h> and <linux/miscdevice.h>.
const (
	controlNode  = nodeFolder + "/control"
	controlMinor = 236 // MAPPER_CTRL_MINOR
	miscMajor    = 10
)

// call is one device-mapper ioctl. github.com/anatol/devmapper.go has no cookies,
// no deferred removal, no table status and no DM_SECURE_DATA_FLAG; what it has is
// used where that is enough.
type call struct {
	name    string // mangled
	flags   uint32 // DM_*_FLAG
	event   uint32 // udev flags and cookie
	targets []byte // what follows the header, such as a table
	count   uint32 // of targets
	room    int    // for the answer
}

// answer is what the kernel wrote back.
type answer struct {
	unix.DmIoctl
	// payload is what followed the header. It may hold a volume key: whoever
	// called wipes it.
	payload secret.Secret
}

// do runs one ioctl. Both ways the data lies in locked memory, which is wiped,
// and the kernel wipes its own copy (DM_SECURE_DATA_FLAG).
func (c *call) do(request uint) (*answer, error) {
	control, err := openControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	buf := secret.New(unix.SizeofDmIoctl + max(len(c.targets), c.room))
	defer buf.Wipe()
	b := buf.Bytes()
	head := (*unix.DmIoctl)(unsafe.Pointer(&b[0]))
	*head = unix.DmIoctl{
		Version: [3]uint32{4}, Data_size: uint32(len(b)), Data_start: unix.SizeofDmIoctl,
		Target_count: c.count, Flags: c.flags | unix.DM_SECURE_DATA_FLAG, Event_nr: c.event,
	}
	copy(head.Name[:len(head.Name)-1], c.name)
	copy(b[unix.SizeofDmIoctl:], c.targets)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), uintptr(request), uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return nil, errno
	}
	a := &answer{DmIoctl: *head}
	if c.room > 0 {
		start, end := min(int(head.Data_start), len(b)), min(int(head.Data_size), len(b))
		a.payload = secret.Copy(b[start:max(start, end)])
	}
	return a, nil
}

// openControl opens the door to device-mapper, and makes it first where nobody
// has: without udev there may be no node, and opening a node of that number makes
// the kernel load the module.
func openControl() (*os.File, error) {
	f, err := openMisc(controlNode, "device-mapper", controlMinor)
	absent := func() bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) }
	if absent() && awaitModule(procModules, "dm_mod", loadLimit) {
		f, err = openMisc(controlNode, "device-mapper", controlMinor)
	}
	if absent() {
		return nil, fmt.Errorf("%w: this kernel has no device-mapper (module dm_mod)", ErrUnsupported)
	}
	return f, err
}

// openMisc opens a node of the misc devices, making it with the number that
// /proc/misc gives for the driver, else with the well-known one.
func openMisc(path, driver string, minor uint32) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if misc, err := os.ReadFile("/proc/misc"); err == nil {
		minor = miscMinor(string(misc), driver, minor)
	}
	err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(miscMajor, minor)))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("making %s: %w", path, err)
	}
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		_ = os.Remove(path)
	}
	return f, err
}

// miscMinor reads /proc/misc: lines such as "236 device-mapper".
func miscMinor(misc, driver string, known uint32) uint32 {
	for line := range strings.Lines(misc) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[1] != driver {
			continue
		}
		if minor, err := strconv.ParseUint(fields[0], 10, 32); err == nil {
			return uint32(minor)
		}
	}
	return known
}

// target puts one line of a table into the form of DM_TABLE_LOAD: the header, the
// parameters, zeros up to a multiple of eight. It wipes nothing: the caller owns
// both.
func target(kind string, sectors uint64, params []byte) secret.Secret {
	size := unix.SizeofDmTargetSpec + (len(params)+1+7)&^7
	s := secret.New(size)
	b := s.Bytes()
	spec := (*unix.DmTargetSpec)(unsafe.Pointer(&b[0]))
	spec.Length, spec.Next = sectors, uint32(size)
	copy(spec.Target_type[:len(spec.Target_type)-1], kind)
	copy(b[unix.SizeofDmTargetSpec:], params)
	return s
}

// targetVersion asks for the version of a target, loading its module
// (DM_GET_TARGET_VERSION, Linux 5.2). Before that it is 0.0.0 and no error.
func targetVersion(kind string) ([3]uint32, error) {
	const room = 64 // struct dm_target_versions with the name
	ask := &call{name: kind, room: room}
	a, err := ask.do(unix.DM_GET_TARGET_VERSION)
	if errors.Is(err, unix.EINVAL) && awaitModule(procModules, "dm_"+kind, loadLimit) {
		a, err = ask.do(unix.DM_GET_TARGET_VERSION)
	}
	if errors.Is(err, unix.ENOTTY) {
		return [3]uint32{}, nil
	}
	if errors.Is(err, unix.EINVAL) {
		return [3]uint32{}, fmt.Errorf("%w: this kernel has no target %q (module dm_%s, or nothing that loads modules)", ErrUnsupported, kind, kind)
	}
	if err != nil {
		return [3]uint32{}, fmt.Errorf("asking for the version of dm-%s: %w", kind, err)
	}
	defer a.payload.Wipe()
	b := a.payload.Bytes()
	var v unix.DmTargetVersions
	if len(b) >= int(unsafe.Sizeof(v)) {
		v = *(*unix.DmTargetVersions)(unsafe.Pointer(&b[0]))
	}
	return v.Version, nil
}

// tableStatus returns the parameters of the only target of a mapping, in locked
// memory since the table of a LUKS1 volume has its key, and how long it is. kind is
// empty if there are several.
func tableStatus(name string) (kind string, sectors uint64, params secret.Secret, err error) {
	const room = 4096 // the longest dm-crypt table: a key of 256 bytes in hexadecimal, a cipher, a path
	a, err := (&call{name: name, flags: unix.DM_STATUS_TABLE_FLAG | unix.DM_NOFLUSH_FLAG, room: room}).do(unix.DM_TABLE_STATUS)
	if err != nil {
		return "", 0, secret.Secret{}, fmt.Errorf("reading the table of %s: %w", name, err)
	}
	defer a.payload.Wipe()
	b := a.payload.Bytes()
	if a.Flags&unix.DM_BUFFER_FULL_FLAG != 0 || a.Target_count != 1 || len(b) < unix.SizeofDmTargetSpec {
		return "", 0, secret.Secret{}, nil
	}
	spec := (*unix.DmTargetSpec)(unsafe.Pointer(&b[0]))
	rest := b[unix.SizeofDmTargetSpec:]
	if end := bytes.IndexByte(rest, 0); end >= 0 {
		rest = rest[:end]
	}
	return cString(spec.Target_type[:]), spec.Length, secret.Copy(rest), nil
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
