package chain

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io/fs"
	"slices"
	"strings"

	"luksmith/tokens/tpm2/bootchain/pe"
)

// Digest is a SHA-256 digest. Other banks are not predicted: firmware measures
// programs into each bank by that bank's own hash, and only this one was compared
// with real boots.
type Digest = [sha256.Size]byte

// Files is a file system that programs are started from: the EFI system partition
// or the extended boot partition. Paths have slashes and begin at its root; the
// case of letters does not matter, as on FAT.
type Files interface {
	// Open returns fs.ErrNotExist when there is no such file.
	Open(path string) (File, error)
	// List returns the names in a folder, sorted; none when it does not exist.
	List(folder string) ([]string, error)
}

// File is the content of a file or of a section.
type File interface {
	Size() int64
	// Head returns the first n bytes, or all if there are fewer.
	Head(n int) ([]byte, error)
	// Hash writes the content into h.
	Hash(h hash.Hash) error
	// Program is pe.ErrFormat when the file is not a program.
	Program() (Program, error)
}

// Program is a PE image.
type Program interface {
	Authenticode() (Digest, error)
	Signers() ([]pe.Signer, error)
	Sections() []Section // in the order of the section table
}

// Section is a section of a program as it lies in memory.
type Section struct {
	Name string
	File
}

// maxText bounds sections and files that are read as text. Kernel and command line
// bound what a machine can use of them far below.
const maxText = 64 << 10

// errLarge: a text is larger than any that a machine could use.
var errLarge = errors.New("larger than 64 KiB")

// readText reads a small file whole.
func readText(f File) ([]byte, error) {
	b, err := f.Head(maxText + 1)
	if err != nil {
		return nil, err
	}
	if len(b) > maxText {
		return nil, errLarge
	}
	return b, nil
}

// digester is a File that knows its digest.
type digester interface{ SHA256() (Digest, error) }

// digestOf is the SHA-256 digest of a file's content.
func digestOf(f File) (d Digest, err error) {
	if k, ok := f.(digester); ok {
		return k.SHA256()
	}
	h := sha256.New()
	if err := f.Hash(h); err != nil {
		return d, err
	}
	h.Sum(d[:0])
	return d, nil
}

// listWith returns the names in a folder that end with a suffix, whatever the case
// of their letters. systemd's programs pass over those that begin with a dot.
func listWith(files Files, folder, suffix string) ([]string, error) {
	names, err := files.List(folder)
	return slices.DeleteFunc(names, func(n string) bool {
		return !strings.HasSuffix(strings.ToLower(n), suffix) || strings.HasPrefix(n, ".")
	}), err
}

func exists(files Files, path string) bool {
	_, err := files.Open(path)
	return !errors.Is(err, fs.ErrNotExist)
}
