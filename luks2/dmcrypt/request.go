package dmcrypt

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// Type is the format of a volume, as it stands in the UUID of a mapping.
type Type string

// The formats that Attach maps.
const (
	LUKS1 Type = "LUKS1"
	LUKS2 Type = "LUKS2"
)

// Request says what to map, and how.
type Request struct {
	// Name is the mapping name; the node is /dev/mapper/Name, with what udev does
	// not allow in names as \xNN.
	Name string
	// Type is LUKS2 if empty.
	Type Type
	// UUID of the volume, as in the header.
	UUID string
	// Device is the data device: a block device, or a file, which gets a loop
	// device that vanishes with the mapping.
	Device string
	// File is the data device, opened for reading, borrowed: what is mapped is this
	// device, even if Device, its path, means another one by now. nil: Device is
	// opened.
	File *os.File
	// Confirm is called, if not nil, when the kernel holds the data device and
	// before anything can be read through the mapping. Its error is returned and
	// nothing is mapped. Who had the key from somewhere else than the device looks
	// here whether both still belong together.
	Confirm func(context.Context) error
	// Warn is told, if not nil, what went wrong without keeping the volume from
	// being mapped.
	Warn func(error)
	// Segment is the part of the data device that is encrypted.
	Segment Segment
	// Digest is the number of the digest that checks the key. The name of the key
	// in the kernel has it.
	Digest int
	// Key is the volume key. Attach borrows it.
	Key secret.Secret
	// Flags are those of the header and of the command, together.
	Flags Flags
	// ReadOnly makes the mapping read-only. So does a read-only data device.
	ReadOnly bool
}

// Segment is a part of a data device: the members of a LUKS2 segment that
// dm-crypt needs.
type Segment struct {
	Offset     uint64 // bytes from the start of the device
	Size       uint64 // bytes; 0: to the end of the device
	IVTweak    uint64 // first initialisation vector, in sectors of 512 bytes
	Encryption string // as dm-crypt names it: aes-xts-plain64
	SectorSize int    // bytes, 512 if zero
}

// Flags are the switches of a mapping.
type Flags uint

// The flags, in the order in which libcryptsetup writes them into a table.
const (
	AllowDiscards Flags = 1 << iota
	SameCPUCrypt
	SubmitFromCryptCPUs
	NoReadWorkqueue
	NoWriteWorkqueue
	IVLargeSectors
	HighPriority
)

// flagName is what a flag is called in a table and in a LUKS2 header.
type flagName struct {
	flag          Flags
	table, header string // header is empty for what a header cannot ask for
	// since is the minor version of the target crypt, 1.since, that has it; below
	// it the flag is left out, as libcryptsetup does: all but the first two decide
	// about speed alone, and those are older than any kernel that can be met.
	since uint32
}

func flagNames() []flagName {
	return []flagName{
		{AllowDiscards, "allow_discards", "allow-discards", 0},
		{SameCPUCrypt, "same_cpu_crypt", "same-cpu-crypt", 0},
		{SubmitFromCryptCPUs, "submit_from_crypt_cpus", "submit-from-crypt-cpus", 0},
		{NoReadWorkqueue, "no_read_workqueue", "no-read-workqueue", 22},
		{NoWriteWorkqueue, "no_write_workqueue", "no-write-workqueue", 22},
		{IVLargeSectors, "iv_large_sectors", "", 0},
		{HighPriority, "high_priority", "high_priority", 26},
	}
}

// HeaderFlags turns config.flags of a LUKS2 header into Flags. Names that dm-crypt
// has no use for (no-journal) or nobody knows are ignored, as libcryptsetup does.
func HeaderFlags(names []string) Flags {
	var f Flags
	for _, n := range flagNames() {
		if n.header != "" && slices.Contains(names, n.header) {
			f |= n.flag
		}
	}
	return f
}

// names returns the flags as words of a table.
func (f Flags) names() []string {
	var list []string
	for _, n := range flagNames() {
		if f&n.flag != 0 {
			list = append(list, n.table)
		}
	}
	return list
}

// String is the flags as words of a table, separated by spaces.
func (f Flags) String() string { return strings.Join(f.names(), " ") }

// warn passes on what does no harm to the mapping.
func (r *Request) warn(err error) {
	if err != nil && r.Warn != nil {
		r.Warn(err)
	}
}

// mapping is a validated request.
type mapping struct {
	*Request
	name string // mangled
	uuid string
}

// validate checks what can be checked without a device.
func (r *Request) validate() (*mapping, error) {
	m := &mapping{Request: r}
	if m.Type == "" {
		m.Type = LUKS2
	}
	var err error
	if m.name, err = kernelName(r.Name); err != nil {
		return nil, err
	}
	if !luks2.ValidUUID(r.UUID) {
		return nil, fmt.Errorf("%w: volume UUID %q is none", ErrUnsupported, r.UUID)
	}
	if m.uuid, err = kernelUUID(m.Type, r.UUID, m.name); err != nil {
		return nil, err
	}
	return m, m.checkSegment()
}

func (m *mapping) checkSegment() error {
	s := m.Segment
	if n := s.SectorSize; n != 0 && (n < 512 || n > 4096 || n&(n-1) != 0) {
		return fmt.Errorf("%w: sector size %d", ErrUnsupported, n)
	}
	if s.Offset%512 != 0 || s.Size%512 != 0 {
		return fmt.Errorf("%w: segment at %d with %d bytes is not made of sectors", ErrUnsupported, s.Offset, s.Size)
	}
	// The table is a line of words: a header must not be able to add one.
	if s.Encryption == "" || strings.ContainsFunc(s.Encryption, func(c rune) bool { return c <= ' ' || c > '~' || c == '\\' }) {
		return fmt.Errorf("%w: cipher %q", ErrUnsupported, s.Encryption)
	}
	// Unlike libcryptsetup, which maps them for its tests: it stores plain text.
	if strings.HasPrefix(s.Encryption, "cipher_null") || strings.HasPrefix(s.Encryption, "capi:cipher_null") {
		return fmt.Errorf("%w: cipher %q does not encrypt", ErrUnsupported, s.Encryption)
	}
	if m.Key.Len() == 0 {
		return fmt.Errorf("%w: no volume key", ErrUnsupported)
	}
	return nil
}

func (m *mapping) sectorSize() int {
	if m.Segment.SectorSize == 0 {
		return 512
	}
	return m.Segment.SectorSize
}
