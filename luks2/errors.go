package luks2

import (
	"errors"
	"fmt"
	"strings"

	"luksmith/luks2/argon2id"
)

// Errors to branch on with errors.Is.
var (
	// ErrNotLUKS2: neither copy of a LUKS2 header is on the device. Another
	// cause is the wrong device, or a detached header that was not named.
	ErrNotLUKS2 = errors.New("not a LUKS2 volume")

	// ErrLUKS1: the device has a LUKS1 header, which this package does not read.
	// Also matches [ErrNotLUKS2].
	ErrLUKS1 error = luks1Error{}

	// ErrNoKey: no keyslot that was tried opens with the passphrase. The slots
	// that could not be tried are in [NoKeyError].
	ErrNoKey = errors.New("no keyslot opens with this passphrase")

	// ErrNoKeyslot: the keyslot that was asked for does not exist.
	ErrNoKeyslot = errors.New("no such keyslot")

	// ErrNoToken: the token that was asked for does not exist.
	ErrNoToken = errors.New("no such token")

	// ErrBusy: another process held the lock of the volume until [LockWait.Limit] or
	// the end of the context, whose own error is wrapped then.
	ErrBusy = errors.New("volume is locked by another process")

	// ErrNoSpace: see [SpaceError].
	ErrNoSpace = errors.New("no space in the header")

	// ErrUnsupported: see [UnsupportedError].
	ErrUnsupported = errors.New("not computed here")

	// ErrRequirement: see [RequirementError].
	ErrRequirement = errors.New("volume has a requirement that is not met here")

	// ErrNoMemory: a keyslot needs more memory than the machine has free or the
	// kernel gives to the process. Other programs may be closed, or a machine with
	// more memory be used.
	ErrNoMemory = argon2id.ErrNoMemory

	// ErrChanged: the UUID, the segments or the digest of the volume key are not
	// those that the caller saw. Somebody replaced or re-encrypted the volume, or
	// the device name now means another device; nothing was written.
	ErrChanged = errors.New("volume was changed or exchanged meanwhile")

	// ErrGone: the device that the volume was opened from was removed, or has
	// another medium. It may come back under another name: whoever waited for it
	// waits and opens it again.
	ErrGone = errors.New("device was removed or exchanged")

	// ErrReadOnly: the volume was opened with OpenOptions.ReadOnly.
	ErrReadOnly = errors.New("volume was opened for reading only")

	// ErrSignature: one header copy is damaged and the device has the signature
	// of something else, which repairing the copy would destroy. Such a volume is
	// read and not written. `wipefs` or `cryptsetup repair` can decide.
	ErrSignature = errors.New("damaged header and a foreign signature")
)

type luks1Error struct{}

func (luks1Error) Error() string { return "LUKS1 volume: " + ErrNotLUKS2.Error() }

func (luks1Error) Unwrap() error { return ErrNotLUKS2 }

// FormatError says that a header copy is malformed, where and why. The text
// quotes nothing from the header unescaped.
type FormatError struct {
	Copy   int    // 0 primary, 1 secondary
	Offset int64  // bytes from the start of the header device; -1 if it is about no single place
	Field  string // "hdr_size", "keyslots.3.area.offset"
	Reason string
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("copy %d: ", e.Copy)
	if e.Offset >= 0 {
		s += fmt.Sprintf("offset %#x: ", e.Offset)
	}
	if e.Field != "" {
		s += e.Field + ": "
	}
	return s + e.Reason
}

// KeyslotError says why one keyslot could not be tried or used.
type KeyslotError struct {
	Slot int
	Err  error
}

func (e *KeyslotError) Error() string { return fmt.Sprintf("keyslot %d: %v", e.Slot, e.Err) }

// Unwrap gives the reason.
func (e *KeyslotError) Unwrap() error { return e.Err }

// NoKeyError is what [Device.OpenKeyslot] returns when the passphrase opened
// nothing. It matches [ErrNoKey] if at least one slot was really tried, and what
// the errors of the skipped slots match.
type NoKeyError struct {
	Tried   []int           // computed to the end; the passphrase does not fit
	Skipped []*KeyslotError // not tried, with the reason
}

func (e *NoKeyError) Error() string {
	var b strings.Builder
	if len(e.Tried) > 0 || len(e.Skipped) == 0 {
		b.WriteString(ErrNoKey.Error())
	}
	for _, s := range e.Skipped {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(s.Error())
	}
	return b.String()
}

// Unwrap gives ErrNoKey, when slots were tried or there are none, and the skipped
// slots' errors.
func (e *NoKeyError) Unwrap() []error {
	var list []error
	if len(e.Tried) > 0 || len(e.Skipped) == 0 {
		list = append(list, ErrNoKey)
	}
	for _, s := range e.Skipped {
		list = append(list, s)
	}
	return list
}

// UnsupportedError says that a keyslot cannot be opened here with any passphrase,
// because something in it is not computed here or not by the running kernel. It
// matches [ErrUnsupported].
type UnsupportedError struct {
	What string // "KDF hash", "anti-forensic hash", "digest hash", "key area"
	Name string // as in the header, untrusted
	// Modules are those of the kernel that compute it, if they are what is missing.
	Modules []string
	Err     error // more about it, or nil
}

func (e *UnsupportedError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s %q is not built in", e.What, e.Name)
}

// Unwrap gives the reason.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Is matches ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// Hint is a command that helps. DEVICE stands for the volume.
func (e *UnsupportedError) Hint() string {
	switch {
	case len(e.Modules) > 0:
		return "load them (`modprobe -a " + strings.Join(e.Modules, " ") + "`; an initrd has to contain them), or add a keyslot that needs none: " +
			"`cryptsetup luksAddKey --keyslot-cipher aes-xts-plain64 --keyslot-key-size 512 DEVICE`"
	case e.What == "key area":
		return "cryptsetup may add a keyslot that opens here: `cryptsetup luksAddKey --keyslot-cipher aes-xts-plain64 --keyslot-key-size 512 DEVICE`"
	case e.What == "digest hash":
		return "cryptsetup can open the volume; its digest gets another hash when it is re-encrypted: `cryptsetup reencrypt --hash sha256 DEVICE`"
	}
	return "cryptsetup may add a keyslot that opens here: `cryptsetup luksAddKey --hash sha256 DEVICE`"
}

// CostError says that a keyslot or digest asks for more work than is allowed for
// numbers that come from an untrusted header. When What is "memory" because the
// machine lacks it, the error matches [ErrNoMemory].
type CostError struct {
	What  string // "memory", "time", "iterations", "lanes"
	Unit  string // "KiB", "KiB-passes", ""
	Need  uint64
	Limit uint64
	// Machine is true if the limit is what the machine has now rather than a
	// fixed cap.
	Machine bool
}

func (e *CostError) Error() string {
	unit := e.Unit
	if unit != "" {
		unit = " " + unit
	}
	if e.Machine {
		return fmt.Sprintf("%v: the key derivation needs %d%s, available are %d%s", ErrNoMemory, e.Need, unit, e.Limit, unit)
	}
	return fmt.Sprintf("key derivation %s of %d%s is above the cap of %d%s", e.What, e.Need, unit, e.Limit, unit)
}

// Is makes a lack of memory match ErrNoMemory.
func (e *CostError) Is(target error) bool { return e.Machine && target == ErrNoMemory }

// RequirementError names what keeps this package from writing to the volume or
// activating it. It matches [ErrRequirement].
type RequirementError struct {
	Names []string // as in the header, untrusted
	// Reencryption is set when a re-encryption is in flight. `cryptsetup
	// reencrypt --resume-only` finishes it.
	Reencryption bool
}

func (e *RequirementError) Error() string {
	if e.Reencryption {
		return "volume is being re-encrypted"
	}
	quoted := make([]string, len(e.Names))
	for i, n := range e.Names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return "volume requires " + strings.Join(quoted, ", ") + ", which is not supported here"
}

// Hint finishes a re-encryption.
func (e *RequirementError) Hint() string {
	if !e.Reencryption {
		return ""
	}
	return "finish it, with the volume open or not: cryptsetup reencrypt --resume-only DEVICE"
}

// Is matches ErrRequirement.
func (e *RequirementError) Is(target error) bool { return target == ErrRequirement }
