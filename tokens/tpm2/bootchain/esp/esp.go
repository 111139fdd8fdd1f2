// Package esp gives the model of the boot the files of a mounted boot partition, or
// of a folder that holds a copy of one.
package esp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"luksmith/tokens/tpm2/bootchain/chain"
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
