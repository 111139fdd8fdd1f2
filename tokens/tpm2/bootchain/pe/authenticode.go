package pe

import (
	"cmp"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Authenticode writes what firmware measures of the image into h: everything but
// the checksum, the entry of the certificate table, and that table (Windows
// Authenticode Portable Executable Signature Format §"Calculating the PE Image
// Hash"). Signing an image therefore does not change the digest.
func (m *Image) Authenticode(h hash.Hash) error {
	rest := m.checksum + 4
	h.Write(m.headers[:m.checksum])
	if m.directory > 0 {
		h.Write(m.headers[rest:m.directory])
		rest = m.directory + 8
	}
	h.Write(m.headers[rest:])
	done := int64(len(m.headers))
	for _, s := range m.inFileOrder() {
		if _, err := io.Copy(h, io.NewSectionReader(m.r, s.start, s.rawSize)); err != nil {
			return fmt.Errorf("reading section %q: %w", s.Name, err)
		}
		done += s.rawSize
	}
	return m.hashRest(h, done)
}

// inFileOrder are the sections that have bytes in the file, by their place.
func (m *Image) inFileOrder() []Section {
	list := slices.DeleteFunc(slices.Clone(m.Sections), func(s Section) bool { return s.rawSize == 0 })
	slices.SortStableFunc(list, func(a, b Section) int { return cmp.Compare(a.start, b.start) })
	return list
}

// hashRest adds what follows the sections and is not the certificate table.
func (m *Image) hashRest(h hash.Hash, done int64) error {
	end := m.size - m.certificate.size
	if done >= end {
		return nil
	}
	_, err := io.Copy(h, io.NewSectionReader(m.r, done, end-done))
	return err
}
