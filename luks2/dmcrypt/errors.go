package dmcrypt

import (
	"errors"
	"fmt"
)

// Errors to branch on with errors.Is.
var (
	// ErrActive: the volume is mapped already, from this device and under this
	// name. A caller that only wants it mapped has what it wants.
	ErrActive = errors.New("volume is already active")
	// ErrNameTaken: something else is mapped under the name: another volume, the
	// same volume from another device, or no LUKS volume at all.
	ErrNameTaken = errors.New("mapping name is taken")
	// ErrInUse: the data device is mounted, or mapped under another name. See
	// [InUseError].
	ErrInUse = errors.New("device is in use")
	// ErrNotActive: there is no mapping of that name.
	ErrNotActive = errors.New("no such mapping")
	// ErrBusy: the mapping cannot be removed because it is mounted or open.
	ErrBusy = errors.New("mapping is in use")
	// ErrNotCrypt: the mapping is not one of dm-crypt: a logical volume, for
	// example.
	ErrNotCrypt = errors.New("mapping is not an encrypted volume")
	// ErrName: a mapping cannot have this name.
	ErrName = errors.New("invalid mapping name")
	// ErrUnsupported: the kernel lacks device-mapper, dm-crypt or the cipher, or
	// the header asks for something that is not supported here. Loading a module
	// or booting another kernel may help; the message says what is missing.
	ErrUnsupported = errors.New("not supported")
	// ErrDevice: the data device does not suit the header: too small, not a
	// multiple of the sector size, neither block device nor file.
	ErrDevice = errors.New("unsuitable data device")
)

// InUseError says who uses a device. It is ErrInUse.
type InUseError struct {
	Device string
	Name   string // of the mapping, empty if it is not one: mounted, part of a RAID …
}

func (e *InUseError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("%s: %v (mounted, or part of another device)", e.Device, ErrInUse)
	}
	return fmt.Sprintf("%s: %v: it is mapped as %q", e.Device, ErrInUse, e.Name)
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }
