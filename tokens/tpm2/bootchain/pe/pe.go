// Package pe reads the programs that firmware starts: headers and sections of a
// PE image, and the digest that firmware measures of it.
//
// debug/pe reads the same headers, and neither tells where the fields stand that
// the digest leaves out nor bounds what it allocates. Images lie on a file system
// that everybody with access to the disk can write to, and are treated as hostile
// input.
package pe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrFormat: the file is not a PE image, or one that firmware would not load.
var ErrFormat = errors.New("not a PE image")

// errCut is what power cuts and full disks leave.
var errCut error = cutError{}

type cutError struct{}

func (cutError) Error() string {
	return ErrFormat.Error() + ": it is shorter than its headers say, as if only a part had been written"
}

func (cutError) Unwrap() error { return ErrFormat }

// Bounds that no image of a boot chain reaches.
const (
	maxSections    = 96 // Windows' loader has the same limit (PE format, "Number of Sections")
	maxHeaders     = 1 << 20
	maxDirectories = 16
	maxZeros       = 256 << 20 // that a section has in memory and not in the file
)

// Places in the headers (PE format, revision of April 2024, "MS-DOS Stub" ff.).
const (
	offsetHeader     = 0x3c // in the MS-DOS header: where "PE\0\0" stands
	sizeFileHeader   = 24   // signature and COFF file header
	offsetSections   = 6    // number of sections, from the signature
	offsetOptional   = 20   // size of the optional header, from the signature
	offsetHeaderSize = 60   // SizeOfHeaders, from the optional header
	offsetChecksum   = 64   // CheckSum, from the optional header
	sizeSection      = 40
	magicPE32        = 0x10b
	magicPE32Plus    = 0x20b
	directoryOfCerts = 4 // Certificate Table
)

// Section is one section as it lies in memory when the image is loaded: Size bytes,
// of which those that are not in the file are zero.
type Section struct {
	Name string
	Size int64 // VirtualSize

	raw     io.ReaderAt
	start   int64 // in the file
	rawSize int64 // SizeOfRawData
}

// Image is a parsed PE image.
type Image struct {
	Sections []Section // in the order of the section table

	r           io.ReaderAt
	size        int64
	headers     []byte // SizeOfHeaders bytes
	checksum    int64  // where the field stands
	directory   int64  // where the entry of the certificate table stands, 0 without one
	certificate region
}

type region struct{ start, size int64 }

// New parses the headers of an image of size bytes. It keeps r and reads sections
// only when they are asked for.
func New(r io.ReaderAt, size int64) (*Image, error) {
	header, optional, err := findHeader(r, size)
	if err != nil {
		return nil, err
	}
	m := &Image{r: r, size: size, checksum: optional + offsetChecksum}
	if m.headers, err = readHeaders(r, size, optional); err != nil {
		return nil, err
	}
	if err := m.readDirectory(optional); err != nil {
		return nil, err
	}
	return m, m.readSections(header, optional)
}

// findHeader returns where the PE signature and the optional header stand.
func findHeader(r io.ReaderAt, size int64) (header, optional int64, err error) {
	dos, err := readAt(r, 0, 64)
	if err != nil || dos[0] != 'M' || dos[1] != 'Z' {
		return 0, 0, ErrFormat
	}
	header = int64(binary.LittleEndian.Uint32(dos[offsetHeader:]))
	if header > maxHeaders || header+sizeFileHeader > size {
		return 0, 0, fmt.Errorf("%w: its header would stand at %d", ErrFormat, header)
	}
	b, err := readAt(r, header, sizeFileHeader)
	if err != nil || string(b[:4]) != "PE\x00\x00" {
		return 0, 0, ErrFormat
	}
	return header, header + sizeFileHeader, nil
}

// readHeaders reads everything before the first section.
func readHeaders(r io.ReaderAt, size, optional int64) ([]byte, error) {
	b, err := readAt(r, optional+offsetHeaderSize, 4)
	if err != nil {
		return nil, ErrFormat
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n > maxHeaders || n > size || n < optional+offsetChecksum+4 {
		return nil, fmt.Errorf("%w: headers of %d bytes", ErrFormat, n)
	}
	return readAt(r, 0, n)
}

// readDirectory finds the certificate table.
func (m *Image) readDirectory(optional int64) error {
	table := optional + 96
	switch m.u16(optional) {
	case magicPE32:
	case magicPE32Plus:
		table = optional + 112
	default:
		return fmt.Errorf("%w: optional header of kind %#x", ErrFormat, m.u16(optional))
	}
	count := m.u32(table - 4)
	if count > maxDirectories {
		return fmt.Errorf("%w: %d data directories", ErrFormat, count)
	}
	if count <= directoryOfCerts {
		return nil
	}
	m.directory = table + 8*directoryOfCerts
	if m.directory+8 > int64(len(m.headers)) {
		return fmt.Errorf("%w: data directories end behind the headers", ErrFormat)
	}
	m.certificate = region{int64(m.u32(m.directory)), int64(m.u32(m.directory + 4))}
	switch c := m.certificate; {
	case c.size > 0 && c.start+c.size > m.size:
		return errCut
	case c.size > 0 && c.start+c.size < m.size:
		return fmt.Errorf("%w: certificate table is not at the end of the file", ErrFormat)
	}
	return nil
}

func (m *Image) readSections(header, optional int64) error {
	count := int64(m.u16(header + offsetSections))
	table := optional + int64(m.u16(header+offsetOptional))
	if count > maxSections || table+count*sizeSection > int64(len(m.headers)) {
		return fmt.Errorf("%w: %d sections", ErrFormat, count)
	}
	for i := range count {
		b := m.headers[table+i*sizeSection:][:sizeSection]
		s := Section{
			Name: strings.TrimRight(string(b[:8]), "\x00"), raw: m.r,
			Size:    int64(binary.LittleEndian.Uint32(b[8:])),
			rawSize: int64(binary.LittleEndian.Uint32(b[16:])),
			start:   int64(binary.LittleEndian.Uint32(b[20:])),
		}
		if s.rawSize > 0 && s.start+s.rawSize > m.size {
			return errCut
		}
		if s.Size-s.rawSize > maxZeros {
			return fmt.Errorf("%w: section %q of %d bytes", ErrFormat, s.Name, s.Size)
		}
		m.Sections = append(m.Sections, s)
	}
	return nil
}

// u16 and u32 read a field of the headers, 0 behind their end.
func (m *Image) u16(at int64) uint16 {
	if at < 0 || at+2 > int64(len(m.headers)) {
		return 0
	}
	return binary.LittleEndian.Uint16(m.headers[at:])
}

func (m *Image) u32(at int64) uint32 {
	if at < 0 || at+4 > int64(len(m.headers)) {
		return 0
	}
	return binary.LittleEndian.Uint32(m.headers[at:])
}

// Section returns the first section of a name.
func (m *Image) Section(name string) (Section, bool) {
	for _, s := range m.Sections {
		if s.Name == name {
			return s, true
		}
	}
	return Section{}, false
}

// Open reads the section's bytes as they lie in memory.
func (s Section) Open() io.Reader {
	inFile := min(s.Size, s.rawSize)
	return io.MultiReader(io.NewSectionReader(s.raw, s.start, inFile), io.LimitReader(zeros{}, s.Size-inFile))
}

// ReaderAt gives access to the part of the section that is in the file, and its
// size: the kernel within a unified kernel image is an image itself.
func (s Section) ReaderAt() (io.ReaderAt, int64) {
	n := min(s.Size, s.rawSize)
	return io.NewSectionReader(s.raw, s.start, n), n
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func readAt(r io.ReaderAt, at, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := r.ReadAt(b, at); err != nil {
		return nil, err
	}
	return b, nil
}
