package bootrecord

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
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

// maxFollowed bounds the volumes.
const maxFollowed = 64

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
	if err := checkTexts(f.SignatureFile); err != nil {
		return err
	}
	if len(f.Volumes) > maxFollowed {
		return damaged("%d volumes", len(f.Volumes))
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
