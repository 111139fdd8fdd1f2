package crypttab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"luksmith/internal/durable"
)

// copySuffix is in the name of the copy that [Change.Write] leaves.
const copySuffix = ".old"

// ErrChanged says that somebody else wrote the file in the meantime. Nothing was
// written; the caller may begin again.
var ErrChanged = errors.New("the file was changed by somebody else in the meantime")

// Preview makes the change in memory only: what [Change.Write] would do.
func (c *Change) Preview(path string) (*Changed, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading crypttab: %w", err)
	}
	_, changed, err := c.Edit(text, path)
	return changed, err
}

// Write changes the file. The text before stays in a copy beside it (Changed.Copy); the
// new file takes the place of the old one in one step, with its owner and mode, and is on
// the disk when Write returns. A file that does not exist is made. When nothing is to be
// changed, nothing is written.
func (c *Change) Write(path string) (*Changed, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	text, err := os.ReadFile(path)
	r := rewrite{path: path, old: text, mode: 0o600, owner: -1, group: -1, missing: errors.Is(err, fs.ErrNotExist)}
	if err != nil && !r.missing {
		return nil, fmt.Errorf("reading crypttab: %w", err)
	}
	fresh, changed, err := c.Edit(text, path)
	if err != nil || changed.Old == changed.New {
		return changed, err
	}
	if err := r.run(fresh); err != nil {
		return nil, fmt.Errorf("writing crypttab: %w", err)
	}
	if !r.missing {
		changed.Copy = path + copySuffix
	}
	return changed, nil
}

// rewrite is one replacement of a file.
type rewrite struct {
	path         string
	old          []byte // what was read
	missing      bool   // there was no file
	mode         fs.FileMode
	owner, group int
}

// run writes the copy, then the file.
func (r *rewrite) run(fresh []byte) error {
	if !r.missing {
		if err := r.likeOld(); err != nil {
			return err
		}
		if err := r.place(r.path+copySuffix, r.old); err != nil {
			return err
		}
	}
	now, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) == !r.missing || !bytes.Equal(now, r.old) {
		return ErrChanged
	}
	return r.place(r.path, fresh)
}

// likeOld takes owner and mode of the file that is there.
func (r *rewrite) likeOld() error {
	info, err := os.Stat(r.path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", r.path)
	}
	st := info.Sys().(*syscall.Stat_t)
	r.mode, r.owner, r.group = info.Mode().Perm(), int(st.Uid), int(st.Gid)
	return nil
}

// place makes a file with a text appear under a name in one step.
func (r *rewrite) place(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = errors.Join(f.Chown(r.owner, r.group), f.Chmod(r.mode))
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return durable.Names(filepath.Dir(path))
}
