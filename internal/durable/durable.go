// Package durable brings files to the disk so that a crash leaves the old or the new
// one.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace puts a file with mode 0600 in place of what is at path, and returns when text
// and name are on the disk. After an error the old file is there.
func Replace(path string, text []byte) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, ".new-") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return Names(folder)
}

// Names returns when the names in a folder are on the disk: new files, and renamed ones.
func Names(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
