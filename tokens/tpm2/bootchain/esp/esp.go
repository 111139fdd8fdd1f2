// Package esp gives the model of the boot the files of a mounted boot partition, or
// of a folder that holds a copy of one.
package esp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/pe"
)

// Disk is a file system. It keeps the digests it has computed, so that files that
// belong to several entries are read once; a new one is made for a later look.
type Disk struct {
	root *os.Root
	sync bool

	mu    sync.Mutex
	files map[string]*file
}

var _ chain.Files = (*Disk)(nil)

// maxNames bounds a folder.
const maxNames = 10000

// Open looks at the file system that is mounted at a folder. With sync, each file
// is brought to the disk before it is read: what is predicted from it has to be
// what is there after a power cut.
func Open(folder string, sync bool) (*Disk, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	return &Disk{root: root, sync: sync, files: map[string]*file{}}, nil
}

// Close closes every file that was opened.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{d.root.Close()}
	for _, f := range d.files {
		errs = append(errs, f.r.Close())
	}
	return errors.Join(errs...)
}

// Open implements chain.Files.
func (d *Disk) Open(name string) (chain.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, err := d.find(name)
	if err != nil {
		return nil, err
	}
	if f := d.files[found]; f != nil {
		return f, nil
	}
	f, err := d.open(found)
	if err == nil {
		d.files[found] = f
	}
	return f, err
}

func (d *Disk) open(name string) (*file, error) {
	// Without O_NONBLOCK a FIFO would wait for a writer.
	r, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := r.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", name)
	}
	if err == nil && d.sync {
		err = r.Sync()
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return &file{r: r, size: info.Size()}, nil
}

// List implements chain.Files.
func (d *Disk) List(folder string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, err := d.find(folder)
	if err == nil {
		return d.names(found)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return nil, err
}

func (d *Disk) names(folder string) ([]string, error) {
	f, err := d.root.Open(folder)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// find is the real name of a path whose letters may have another case.
func (d *Disk) find(name string) (string, error) {
	at := "."
	for word := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if word == "" {
			continue
		}
		if _, err := d.root.Lstat(path.Join(at, word)); err == nil {
			at = path.Join(at, word)
			continue
		}
		names, err := d.names(at)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, word) })
		if i < 0 {
			return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		at = path.Join(at, names[i])
	}
	return at, nil
}

// file is a chain.File on a disk.
type file struct {
	r    *os.File
	size int64

	once   sync.Once
	digest chain.Digest
	err    error

	programOnce sync.Once
	program     *program
	programErr  error
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

// chunk is what is read at once.
const chunk = 1 << 20

func (f *file) Hash(h hash.Hash) error {
	n, err := io.CopyBuffer(onlyWriter{h}, io.NewSectionReader(f.r, 0, f.size), make([]byte, chunk))
	if err == nil && n != f.size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyWriter hides other methods, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// SHA256 keeps the digest.
func (f *file) SHA256() (chain.Digest, error) {
	f.once.Do(func() {
		h := sha256.New()
		f.err = f.Hash(h)
		h.Sum(f.digest[:0])
	})
	return f.digest, f.err
}

func (f *file) Program() (chain.Program, error) {
	f.programOnce.Do(func() { f.program, f.programErr = newProgram(f.r, f.size) })
	if f.programErr != nil {
		return nil, f.programErr
	}
	return f.program, nil
}

// program is a chain.Program on a disk.
type program struct {
	*pe.Image
	once   sync.Once
	digest chain.Digest
	err    error
}

func newProgram(r io.ReaderAt, size int64) (*program, error) {
	m, err := pe.New(r, size)
	return &program{Image: m}, err
}

func (p *program) Authenticode() (chain.Digest, error) {
	p.once.Do(func() {
		h := sha256.New()
		p.err = p.Image.Authenticode(h)
		h.Sum(p.digest[:0])
	})
	return p.digest, p.err
}

func (p *program) Sections() []chain.Section {
	var list []chain.Section
	for _, s := range p.Image.Sections {
		list = append(list, chain.Section{Name: s.Name, File: sectionFile{s}})
	}
	return list
}

// sectionFile is a section as a chain.File.
type sectionFile struct{ s pe.Section }

func (f sectionFile) Size() int64 { return f.s.Size }

func (f sectionFile) Head(n int) ([]byte, error) {
	b := make([]byte, min(f.s.Size, int64(n)))
	_, err := io.ReadFull(f.s.Open(), b)
	return b, err
}

func (f sectionFile) Hash(h hash.Hash) error {
	_, err := io.CopyBuffer(onlyWriter{h}, f.s.Open(), make([]byte, chunk))
	return err
}

func (f sectionFile) Program() (chain.Program, error) {
	r, size := f.s.ReaderAt()
	return newProgram(r, size)
}
