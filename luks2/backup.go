package luks2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"luksmith/internal/durable"
)

// Backup copies both header copies and all key areas to a new file with mode
// 0600, as `cryptsetup luksHeaderBackup` does; cryptsetup can restore it. An
// existing file is an error that matches fs.ErrExist. During a re-encryption it is
// refused ([RequirementError]): the copy would go on saying how far that was today,
// and restoring it would have finished data converted again. Whoever has the file and a
// passphrase that was valid when it was made can open the volume, whatever was
// wiped since.
func (d *Device) Backup(ctx context.Context, path string) error {
	s, l, err := d.beginReading(ctx)
	if err != nil {
		return err
	}
	defer s.end() // others must not write while the parts are copied
	if h := l.header(); h.Reencrypting() {
		return fmt.Errorf("backing up header of %s: a copy would be wrong as soon as it goes on: %w", d.header, h.WriteObstacle())
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("backing up header of %s: %s: %w; it is not overwritten", d.header, path, fs.ErrExist)
	case err != nil:
		return fmt.Errorf("backing up header of %s: %w", d.header, err)
	}
	err = copyHeader(ctx, out, s, l.chosen.view.areasEnd())
	if err := errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("backing up header of %s: %w", d.header, err), removeIncomplete(path))
	}
	return durable.Names(filepath.Dir(path))
}

func copyHeader(ctx context.Context, out *os.File, in io.ReaderAt, size uint64) error {
	block := make([]byte, 1<<20)
	for from := uint64(0); from < size; from += uint64(len(block)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := block[:min(uint64(len(block)), size-from)]
		if _, err := in.ReadAt(part, int64(from)); err != nil {
			return err
		}
		if _, err := out.Write(part); err != nil {
			return err
		}
	}
	return out.Sync()
}

func removeIncomplete(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the incomplete backup: %w", err)
	}
	return nil
}
