package esp

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"errors"
	"hash"
	"io"
	"os"
	"sync"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/pe"
)

// chunk is what is read at once.
const chunk = 1 << 20

// content is what is kept of the content of a file, or of a section, so that it is read
// once: whoever begins with it goes on from there.
type content struct {
	once  sync.Once
	state []byte // of SHA-256 behind it
	err   error
}

// hash writes what read gives into h.
func (c *content) hash(h hash.Hash, read func() io.Reader, size int64) error {
	into, ok := h.(encoding.BinaryUnmarshaler)
	if !ok || !isNew(h) {
		return copyAll(h, read(), size)
	}
	c.once.Do(func() {
		own := sha256.New()
		if c.err = copyAll(own, read(), size); c.err == nil {
			c.state, c.err = own.(encoding.BinaryMarshaler).MarshalBinary()
		}
	})
	if c.err != nil {
		return c.err
	}
	return into.UnmarshalBinary(c.state)
}

// isNew reports whether h is SHA-256 of nothing yet.
func isNew(h hash.Hash) bool {
	state := func(h hash.Hash) []byte {
		m, ok := h.(encoding.BinaryMarshaler)
		if !ok {
			return nil
		}
		b, err := m.MarshalBinary()
		if err != nil {
			return nil
		}
		return b
	}
	b := state(h)
	return b != nil && bytes.Equal(b, state(sha256.New()))
}

func copyAll(h hash.Hash, r io.Reader, size int64) error {
	n, err := io.CopyBuffer(onlyWriter{h}, r, make([]byte, chunk))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyWriter hides other methods, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// parsed is the program that a file, or a section, is, read once.
type parsed struct {
	once    sync.Once
	program *program
	err     error
}

func (p *parsed) read(r io.ReaderAt, size int64) (chain.Program, error) {
	p.once.Do(func() { p.program, p.err = newProgram(r, size) })
	if p.err != nil {
		return nil, p.err
	}
	return p.program, nil
}

// file is a chain.File on a disk.
type file struct {
	r       *os.File
	size    int64
	content content
	parsed  parsed
}

func (f *file) Size() int64 { return f.size }

func (f *file) Head(n int) ([]byte, error) { return head(f.r, f.size, n) }

func head(r io.ReaderAt, size int64, n int) ([]byte, error) {
	b := make([]byte, min(size, int64(n)))
	_, err := r.ReadAt(b, 0)
	if errors.Is(err, io.EOF) && len(b) == 0 {
		err = nil
	}
	return b, err
}

func (f *file) Hash(h hash.Hash) error {
	return f.content.hash(h, func() io.Reader { return io.NewSectionReader(f.r, 0, f.size) }, f.size)
}

func (f *file) Program() (chain.Program, error) { return f.parsed.read(f.r, f.size) }

// program is a chain.Program on a disk.
type program struct {
	*pe.Image
	sections []chain.Section

	once   sync.Once
	digest chain.Digest
	err    error
}

func newProgram(r io.ReaderAt, size int64) (*program, error) {
	m, err := pe.New(r, size)
	if err != nil {
		return nil, err
	}
	p := &program{Image: m}
	for _, s := range m.Sections {
		p.sections = append(p.sections, chain.Section{Name: s.Name, File: &sectionFile{s: s}})
	}
	return p, nil
}

func (p *program) Authenticode() (chain.Digest, error) {
	p.once.Do(func() {
		h := sha256.New()
		p.err = p.Image.Authenticode(h)
		h.Sum(p.digest[:0])
	})
	return p.digest, p.err
}

func (p *program) Sections() []chain.Section { return p.sections }

// sectionFile is a section as a chain.File.
type sectionFile struct {
	s       pe.Section
	content content
	parsed  parsed
}

func (f *sectionFile) Size() int64 { return f.s.Size }

func (f *sectionFile) Head(n int) ([]byte, error) {
	b := make([]byte, min(f.s.Size, int64(n)))
	_, err := io.ReadFull(f.s.Open(), b)
	return b, err
}

func (f *sectionFile) Hash(h hash.Hash) error { return f.content.hash(h, f.s.Open, f.s.Size) }

func (f *sectionFile) Program() (chain.Program, error) { return f.parsed.read(f.s.ReaderAt()) }
