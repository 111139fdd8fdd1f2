package bootrecord

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Following are the volumes whose tokens are kept in step with updates of this
// machine: /var/lib/luksmith/follow.json. Nothing is kept in step without it.
type Following struct {
	Version int        `json:"version"`
	Since   time.Time  `json:"since"`
	Volumes []Followed `json:"volumes"`
	// SignatureFile gets the signatures that the tokens have, for systemd; "" if nobody
	// asked for one.
	SignatureFile string `json:"signature_file,omitempty"`
	// ESP and Boot are the folders on which somebody said that the boot partitions are
	// mounted; "" looks in the usual places.
	ESP  string `json:"esp_path,omitempty"`
	Boot string `json:"boot_path,omitempty"`
	// Machines are the machine IDs that this system had, the newest last: its tokens name
	// the one of when they were made.
	Machines []string `json:"machine_ids,omitempty"`
}

// Followed is a volume whose tokens follow the updates of the system.
type Followed struct {
	UUID   string `json:"uuid"`
	Device string `json:"device"` // as it was named
	// PCRs are those that tokens are bound to, as the option names them.
	PCRs string `json:"pcrs,omitempty"`
	// Signed are those whose values are signed for tokens with a PIN, as somebody
	// named them: the header is not believed, for a signature of fewer would do too.
	Signed string `json:"signed,omitempty"`
	// Compat is the oldest systemd that has to read the tokens, as somebody named it;
	// 0 is the one that is installed.
	Compat int `json:"compat,omitempty"`
}

const (
	maxFollowed = 64 // volumes
	maxMachines = 8  // machine IDs
)

func followingPath(root string) string {
	return filepath.Join("/", root, "var/lib/luksmith/follow.json")
}

// ReadFollowing returns nil, and no error, when nothing is kept in step.
func ReadFollowing(root string) (*Following, error) {
	f := &Following{}
	err := readJSON(followingPath(root), f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", followingPath(root), err)
	}
	return f, nil
}

// ErrBusy: another process works at what is followed.
var ErrBusy = errors.New("another call of follow is running")

// LockFollowing has one process at a time work at what is followed: two that make tokens
// for the same boots make them twice. When ctx ends it is ErrBusy.
func LockFollowing(ctx context.Context, root string) (unlock func(), err error) {
	folder := Folder(filepath.Dir(followingPath(root)))
	for {
		unlock, err := folder.lock(0)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// lockPoll is how often somebody who waits looks.
const lockPoll = 20 * time.Millisecond

// Write replaces the file.
func (f *Following) Write(root string) error {
	f.Version = Version
	if err := f.check(); err != nil {
		return err
	}
	return writeJSON(followingPath(root), f)
}

func (f *Following) check() error {
	if err := checkVersion(f.Version); err != nil {
		return err
	}
	if err := checkTexts(append([]string{f.SignatureFile, f.ESP, f.Boot}, f.Machines...)...); err != nil {
		return err
	}
	if len(f.Volumes) > maxFollowed || len(f.Machines) > maxMachines {
		return damaged("%d volumes, %d machine IDs", len(f.Volumes), len(f.Machines))
	}
	for _, v := range f.Volumes {
		if err := checkTexts(v.UUID, v.Device, v.PCRs, v.Signed); err != nil {
			return err
		}
	}
	return nil
}

// Add puts a volume on the list, or in place of what the list has under its UUID.
func (f *Following) Add(v Followed) {
	for i, was := range f.Volumes {
		if was.UUID == v.UUID {
			f.Volumes[i] = v
			return
		}
	}
	f.Volumes = append(f.Volumes, v)
}

// AddMachine notes a machine ID, and reports whether it is a new one.
func (f *Following) AddMachine(id string) bool {
	if id == "" || slices.Contains(f.Machines, id) {
		return false
	}
	f.Machines = append(f.Machines, id)
	f.Machines = f.Machines[max(0, len(f.Machines)-maxMachines):]
	return true
}
