package bootrecord

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// Seen is what the boot partitions held when they were last looked at:
// /var/lib/luksmith/entries.json. Whoever holds the disk can write to boot partitions,
// but not to this file, which lies on the encrypted root. So an image that is new at the
// first look in a boot came while the system did not run, and nobody who may has
// approved it.
type Seen struct {
	Version int `json:"version"`
	// Boot is the boot in which was looked, "" if that could not be told.
	Boot string `json:"boot,omitempty"`
	// Places is the number of file systems that were looked at.
	Places int     `json:"places"`
	Images []Image `json:"images"`
	// Separator says that the system has the unit that extends os-separator in the
	// initrd, and SeparatorBefore that it had it when another boot was looked at last,
	// so that the initrd of this boot was made with it.
	Separator       bool `json:"separator,omitempty"`
	SeparatorBefore bool `json:"separator_before,omitempty"`
}

// Image is what a boot entry starts.
type Image struct {
	Entry string `json:"entry"`
	// Digest is over the values that starting it gives to the PCRs of programs and
	// their files.
	Digest Digest `json:"digest"`
	// Doubtful says that it came while the system did not run, and was not accepted
	// since.
	Doubtful bool `json:"doubtful,omitempty"`
}

// maxImages bounds the entries that are kept.
const maxImages = 256

func seenPath(root string) string { return filepath.Join("/", root, "var/lib/luksmith/entries.json") }

// ReadSeen returns nil, and no error, when nobody has looked yet.
func ReadSeen(root string) (*Seen, error) {
	s := &Seen{}
	err := readJSON(seenPath(root), s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", seenPath(root), err)
	}
	return s, nil
}

// Write replaces the file.
func (s *Seen) Write(root string) error {
	s.Version = Version
	if err := s.check(); err != nil {
		return err
	}
	return writeJSON(seenPath(root), s)
}

func (s *Seen) check() error {
	if err := checkVersion(s.Version); err != nil {
		return err
	}
	if len(s.Images) > maxImages || s.Places < 0 {
		return damaged("%d images from %d places", len(s.Images), s.Places)
	}
	if s.Boot != "" && !isBootID(s.Boot) {
		return damaged("%.40q is not the identity of a boot", s.Boot)
	}
	for _, i := range s.Images {
		if len(i.Digest) != bankSize("sha256") {
			return damaged("a digest of %d bytes", len(i.Digest))
		}
		if err := checkTexts(i.Entry); err != nil {
			return err
		}
	}
	return nil
}

// Look is what is seen now, after was: an image is in doubt if it was before, or if it
// is new and was not watched coming, that is, at the first look in a boot, or from a
// file system that was not looked at before. With nothing seen before, what lies there
// is taken as it is.
func (s *Seen) Look(was *Seen) {
	if was == nil {
		s.SeparatorBefore = s.Separator
		return
	}
	if s.SeparatorBefore = was.SeparatorBefore; was.Boot != s.Boot {
		s.SeparatorBefore = was.Separator
	}
	watched := was.Boot == s.Boot && s.Places <= was.Places
	for i := range s.Images {
		image := &s.Images[i]
		at := slices.IndexFunc(was.Images, func(old Image) bool { return bytes.Equal(old.Digest, image.Digest) })
		switch {
		case at >= 0:
			image.Doubtful = was.Images[at].Doubtful
		default:
			image.Doubtful = !watched
		}
	}
}

// Doubtful reports whether an image with this digest is in doubt.
func (s *Seen) Doubtful(digest []byte) bool {
	return slices.ContainsFunc(s.Images, func(i Image) bool { return i.Doubtful && bytes.Equal(i.Digest, digest) })
}

// Accept ends all doubts.
func (s *Seen) Accept() {
	for i := range s.Images {
		s.Images[i].Doubtful = false
	}
}
