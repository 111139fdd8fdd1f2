package luks2

import (
	"bytes"
	"encoding/binary"
	"slices"

	"luksmith/luks2/internal/hashes"
)

// Layout of the binary header, LUKS2 specification 1.1.3 §2.2; cryptsetup's
// struct luks2_hdr_disk. All numbers are big-endian.
const (
	binarySize = 4096 // with its padding; the JSON area follows

	offMagic     = 0x000
	offVersion   = 0x006
	offHdrSize   = 0x008
	offSeqID     = 0x010
	offLabel     = 0x018
	offCsumAlg   = 0x048
	offSalt      = 0x068
	offUUID      = 0x0a8
	offSubsystem = 0x0d0
	offHdrOffset = 0x100
	offCsum      = 0x1c0

	lenLabel   = 48
	lenCsumAlg = 32
	lenSalt    = 64
	lenUUID    = 40
	lenCsum    = 64
)

const (
	magicPrimary   = "LUKS\xba\xbe"
	magicSecondary = "SKUL\xba\xbe"
)

// headerSizes are the only sizes of a header copy, binary header and JSON area
// together. Each is also a place where a secondary copy may start.
var headerSizes = [...]uint64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

const (
	minHeaderSize = 16 << 10
	maxHeaderSize = 4 << 20
)

// binaryHeader is the first 4096 bytes of a copy.
type binaryHeader []byte

func (b binaryHeader) magic() string     { return string(b[offMagic : offMagic+6]) }
func (b binaryHeader) version() uint16   { return binary.BigEndian.Uint16(b[offVersion:]) }
func (b binaryHeader) size() uint64      { return binary.BigEndian.Uint64(b[offHdrSize:]) }
func (b binaryHeader) seqID() uint64     { return binary.BigEndian.Uint64(b[offSeqID:]) }
func (b binaryHeader) offset() uint64    { return binary.BigEndian.Uint64(b[offHdrOffset:]) }
func (b binaryHeader) label() string     { return cString(b[offLabel : offLabel+lenLabel]) }
func (b binaryHeader) subsystem() string { return cString(b[offSubsystem : offSubsystem+lenLabel]) }
func (b binaryHeader) uuid() string      { return cString(b[offUUID : offUUID+lenUUID]) }
func (b binaryHeader) csumAlg() string   { return cString(b[offCsumAlg : offCsumAlg+lenCsumAlg]) }
func (b binaryHeader) salt() []byte      { return b[offSalt : offSalt+lenSalt] }
func (b binaryHeader) csum() []byte      { return b[offCsum : offCsum+lenCsum] }

func (b binaryHeader) setText(offset, length int, s string) {
	field := b[offset : offset+length]
	clear(field)
	copy(field[:length-1], s) // always ends with NUL
}

// cString is the text before the first NUL. The last byte never counts, as in
// cryptsetup.
func cString(b []byte) string {
	b = b[:len(b)-1]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// checksum hashes the copy, whose JSON area is area, with the place of the
// checksum taken as zero. It returns nil for a hash that is not built in.
func (b binaryHeader) checksum(area []byte) []byte {
	f, ok := hashes.ByName(b.csumAlg())
	if !ok {
		return nil
	}
	h := f.New()
	h.Write(b[:offCsum])
	h.Write(make([]byte, lenCsum))
	h.Write(b[offCsum+lenCsum:])
	h.Write(area)
	return h.Sum(nil)
}

// seal puts the checksum in its place, padded with zeros.
func (b binaryHeader) seal(area []byte) {
	sum := b.checksum(area)
	clear(b.csum())
	copy(b.csum(), sum)
}

// knownSize reports whether n is one of the nine sizes.
func knownSize(n uint64) bool { return slices.Contains(headerSizes[:], n) }
