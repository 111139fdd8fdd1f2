package sheet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"luksmith/internal/durable"
	"luksmith/internal/helper"
	"luksmith/luks2/secret"
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
	return 0, tokens.Usagef("the recovery sheet %q must end in .pdf or .png", path)
}

// File is the file of a sheet and the running program that will draw it. Both are
// made before the key is enrolled, so that a wrong name or a missing program is found
// out in time, and used afterwards, when the keyslot is known. Either [File.Write]
// or [File.Discard] must follow.
type File struct {
	file   *os.File // nil after Write or Discard
	format Format
	helper helper.Conn
}

// Create starts the helper program and makes an empty file that only its owner may
// read. Without the program the error is [tokens.ErrNotBuilt], and nothing is made.
// A file that exists is never touched: then the error is [fs.ErrExist].
func Create(ctx context.Context, path string) (*File, error) { return create(ctx, path, start) }

func create(ctx context.Context, path string, start connector) (*File, error) {
	format, err := FormatOf(path)
	if err != nil {
		return nil, err
	}
	conn, err := start.open(ctx)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		_ = conn.Close()
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("creating recovery sheet: %s: %w; it is not overwritten", path, fs.ErrExist)
		}
		return nil, fmt.Errorf("creating recovery sheet: %w", err)
	}
	return &File{f, format, conn}, nil
}

// Write draws the sheet into the file, which is on the disk when it returns, and
// ends the helper program. After an error, such as a full disk or the end of ctx,
// the file is gone.
func (f *File) Write(ctx context.Context, s *Sheet) error {
	content, err := draw(ctx, f.helper, s, f.format)
	defer secret.WipeAll(content)
	if err == nil {
		err = fill(f.file, content)
	}
	if err != nil {
		path := f.file.Name()
		f.Discard()
		return fmt.Errorf("writing recovery sheet %s, which is removed: %w", path, err)
	}
	f.file = nil
	_ = f.helper.Close()
	return nil
}

// fill writes the pieces one after the other, and closes the file once it is on the
// disk.
func fill(file *os.File, pieces []secret.Secret) error {
	for _, piece := range pieces {
		if _, err := file.Write(piece.Bytes()); err != nil {
			return err
		}
	}
	if err := errors.Join(file.Sync(), durable.Names(filepath.Dir(file.Name()))); err != nil {
		return err
	}
	return file.Close()
}

// Discard ends the helper program and removes the file that was not written. After
// Write it does nothing, so that it can be deferred.
func (f *File) Discard() {
	if f.file == nil {
		return
	}
	_ = f.file.Close()
	_ = os.Remove(f.file.Name())
	_ = f.helper.Close()
	f.file = nil
}
