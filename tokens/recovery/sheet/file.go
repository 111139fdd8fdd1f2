package sheet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"luksmith/tokens"
)

// FormatOf tells the format from the end of a file name, .pdf or .png. The error
// for others is [tokens.ErrUsage].
func FormatOf(path string) (Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".pdf":
		return PDF, nil
	case ".png":
		return PNG, nil
	}
	return 0, fmt.Errorf("%w: the recovery sheet %q must end in .pdf or .png", tokens.ErrUsage, path)
}

// File is the file of a sheet. It is made before the key is enrolled, so that a
// wrong name is found out in time, and written afterwards, when the keyslot is
// known.
type File struct {
	file   *os.File
	format Format
}

// Create makes an empty file that only its owner may read. A file that exists is
// never touched: then the error is [fs.ErrExist].
func Create(path string) (*File, error) {
	format, err := FormatOf(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating recovery sheet: %w; it is not overwritten", err)
	}
	if err != nil {
		return nil, fmt.Errorf("creating recovery sheet: %w", err)
	}
	return &File{f, format}, nil
}

// Write draws the sheet into the file and closes it once it is on the disk. After
// an error the file is gone.
func (f *File) Write(s *Sheet) error {
	err := s.Write(f.file, f.format)
	if err == nil {
		err = f.file.Sync()
	}
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(f.file.Name())
		return fmt.Errorf("writing recovery sheet %s, which is removed: %w", f.file.Name(), err)
	}
	f.file = nil
	return nil
}

// Discard closes and removes a file that was not written. After Write it does
// nothing, so that it can be deferred.
func (f *File) Discard() {
	if f.file == nil {
		return
	}
	_ = f.file.Close()
	_ = os.Remove(f.file.Name())
	f.file = nil
}
