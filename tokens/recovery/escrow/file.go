package escrow

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"luksmith/internal/durable"
)

// File is a new file for an envelope.
type File struct{ file *os.File } // nil after Write or Discard

// Create makes the file, empty and for its owner only, so that a name that is taken
// is found out before anything is enrolled.
func Create(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating escrow file: %s: %w; it is not overwritten", path, fs.ErrExist)
	}
	if err != nil {
		return nil, fmt.Errorf("creating escrow file: %w", err)
	}
	return &File{f}, nil
}

// Write has the envelope and the name on the disk. If that fails the file is removed.
func (f *File) Write(e *Envelope) error {
	path := f.file.Name()
	text, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		_, err = f.file.Write(append(text, '\n'))
	}
	if err == nil {
		err = errors.Join(f.file.Sync(), durable.Names(filepath.Dir(path)))
	}
	if err != nil {
		f.Discard()
		return fmt.Errorf("writing escrow file %s, which is removed: %w", path, err)
	}
	err = f.file.Close()
	f.file = nil
	return err
}

// Discard removes a file that was not written.
func (f *File) Discard() {
	if f.file == nil {
		return
	}
	_ = f.file.Close()
	_ = os.Remove(f.file.Name())
	f.file = nil
}
