package bootrecord

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/durable"
)

// Folder is a folder of records, one file BOOT_ID.json for each boot.
type Folder string

// Runtime is the folder for the initrd and later. It lasts as long as the boot. root moves it, for tests and images; empty is /.
func Runtime(root string) Folder { return Folder(filepath.Join("/", root, "run/luksmith/boots")) }

// State is where records are kept.
func State(root string) Folder { return Folder(filepath.Join("/", root, "var/lib/luksmith/boots")) }

const (
	// maxFile bounds what is read of a file.
	maxFile = 1 << 20
	// maxBoots is how many records are kept; those of older boots are removed.
	maxBoots = 16
	// maxNames bounds a folder.
	maxNames = 1000
)

// CurrentID is the identity of the running boot.
func CurrentID(root string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/", root, "proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("reading the identity of this boot: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !isBootID(id) {
		return "", damaged("%.40q is not the identity of a boot", id)
	}
	return id, nil
}

// Current is everything that is known of the running boot: what [Runtime] and
// [State] have. It is an empty record, and no error, when there is none.
func Current(root string) (*Boot, error) {
	id, err := CurrentID(root)
	if err != nil {
		return nil, err
	}
	b := &Boot{Version: Version, ID: id, Time: time.Now().UTC()}
	var errs []error
	for _, f := range []Folder{Runtime(root), State(root)} {
		found, err := f.Read(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.Time = found.Time
		if err := b.Merge(found); err != nil {
			errs = append(errs, err)
		}
	}
	return b, errors.Join(errs...)
}

// Read returns the record of a boot, fs.ErrNotExist when there is none. A file that
// another user could have written is refused, as is one that is damaged ([ErrFormat])
// or of a later format ([ErrNewer]).
func (f Folder) Read(id string) (*Boot, error) {
	path := f.path(id)
	b := &Boot{}
	err := readJSON(path, b)
	if err == nil {
		err = b.check()
	}
	if err == nil && b.ID != id {
		err = damaged("it is about another boot, %s", b.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// Write puts a record in place of the one of the same boot: after a crash there is
// the old one or the new one. It makes the folder and removes the oldest records.
func (f Folder) Write(b *Boot) error {
	b.Version = Version
	if err := b.check(); err != nil {
		return err
	}
	if err := f.prune(b.ID); err != nil {
		return err
	}
	return writeJSON(f.path(b.ID), b)
}

// Update reads the record of a boot, or begins one, lets change work on it and writes
// it. Others that do the same at the same time wait. What cannot be read is begun
// anew, but for the record of a newer luksmith.
func (f Folder) Update(id string, change func(*Boot) error) error {
	if !isBootID(id) {
		return damaged("%.40q is not the identity of a boot", id)
	}
	unlock, err := f.lock(updateWait)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := f.Read(id)
	if errors.Is(err, ErrNewer) {
		return err
	}
	if err != nil {
		b = &Boot{Version: Version, ID: id, Time: time.Now().UTC()}
	}
	if err := change(b); err != nil {
		return err
	}
	return f.Write(b)
}

// Boots returns the records, the newest first. Those that cannot be used are left
// out; the error says why and comes beside the others.
func (f Folder) Boots() ([]*Boot, error) {
	ids, err := f.ids()
	if err != nil {
		return nil, err
	}
	var list []*Boot
	var errs []error
	for _, id := range ids {
		b, err := f.Read(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, b)
	}
	slices.SortStableFunc(list, func(a, b *Boot) int { return b.Time.Compare(a.Time) })
	return list, errors.Join(errs...)
}

func (f Folder) path(id string) string { return filepath.Join(string(f), filepath.Base(id)+".json") }

// ids are the boots that have a file.
func (f Folder) ids() ([]string, error) {
	d, err := os.Open(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var ids []string
	for _, n := range names {
		if id, ok := strings.CutSuffix(n, ".json"); ok && isBootID(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// prune removes the oldest files so that one more has room.
func (f Folder) prune(keep string) error {
	ids, err := f.ids()
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == keep })
	if len(ids) < maxBoots {
		return nil
	}
	age := map[string]time.Time{}
	for _, id := range ids {
		if info, err := os.Lstat(f.path(id)); err == nil {
			age[id] = info.ModTime()
		}
	}
	slices.SortStableFunc(ids, func(a, b string) int { return age[a].Compare(age[b]) })
	var errs []error
	for _, id := range ids[:len(ids)-maxBoots+1] {
		errs = append(errs, os.Remove(f.path(id)))
	}
	return errors.Join(errs...)
}

// readJSON reads a file of ours.
func readJSON(path string, to any) error {
	// Without O_NONBLOCK a FIFO would wait for a writer.
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := mayTrust(r); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return damaged("larger than %d bytes", maxFile)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return damaged("%w", err)
	}
	return nil
}

// mayTrust refuses what somebody else may have written.
func mayTrust(r *os.File) error {
	info, err := r.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return damaged("not a file")
	}
	owner := info.Sys().(*syscall.Stat_t)
	if uid := int(owner.Uid); uid != 0 && uid != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return damaged("others than root may have written it")
	}
	return nil
}

// writeJSON replaces a file, or leaves the old one.
func writeJSON(path string, from any) error {
	text, err := json.MarshalIndent(from, "", " ")
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return damaged("larger than %d bytes", maxFile)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := durable.Replace(path, append(text, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
