package bootrecord

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sketch is a record as far as [Folder.Append] knows it. The boot helper is to be
// small, so it keeps what it does not write as the text that it was.
type sketch struct {
	Version int               `json:"version"`
	ID      string            `json:"boot"`
	Time    time.Time         `json:"time"`
	Kernel  string            `json:"kernel,omitempty"`
	Unlocks []json.RawMessage `json:"unlocks,omitempty"`
	Chain   json.RawMessage   `json:"chain,omitempty"`
}

// How long others that write the same record are waited for.
const (
	appendWait = time.Second
	updateWait = 10 * time.Second
)

// Append adds an attempt to the record of a boot, or begins one. It does what
// [Folder.Update] with [Boot.AddUnlock] would, for a program that has to be small and
// must not wait: texts that are too long are cut, and after a second of waiting for
// somebody else there is an error.
func (f Folder) Append(id string, u *Unlock) error {
	if !isBootID(id) {
		return damaged("%.40q is not the identity of a boot", id)
	}
	unlock, err := f.lock(appendWait)
	if err != nil {
		return err
	}
	defer unlock()
	var s sketch
	err = readJSON(f.path(id), &s)
	if s.Version > Version {
		return ErrNewer
	}
	if err != nil || s.ID != id {
		s = sketch{ID: id, Time: time.Now().UTC(), Kernel: kernelRelease()}
	}
	u.cut()
	text, err := json.Marshal(u)
	if err != nil {
		return err
	}
	s.Version, s.Unlocks = Version, bounded(append(s.Unlocks, text))
	return writeJSON(f.path(id), s)
}

// bounded keeps the first attempt and the newest ones.
func bounded[T any](unlocks []T) []T {
	if n := len(unlocks); n > maxUnlocks {
		return append(unlocks[:1], unlocks[n-maxUnlocks+1:]...)
	}
	return unlocks
}

// cut makes an attempt small enough to be read again.
func (u *Unlock) cut() {
	u.Failed = u.Failed[:min(len(u.Failed), maxFailures)]
	texts := []*string{&u.Volume, &u.Name}
	ways := []*Way{u.Opened}
	for i := range u.Failed {
		ways = append(ways, &u.Failed[i].Way)
		texts = append(texts, &u.Failed[i].Error)
	}
	for _, w := range ways {
		if w != nil {
			texts = append(texts, &w.By, &w.Label)
		}
	}
	for _, t := range texts {
		*t = strings.ToValidUTF8((*t)[:min(len(*t), maxText)], "")
	}
}

// kernelRelease is that of the running kernel.
func kernelRelease() string {
	var name unix.Utsname
	_ = unix.Uname(&name) // cannot fail
	return unix.ByteSliceToString(name.Release[:])
}

// lock keeps others that write out, for as long as the folder is open.
func (f Folder) lock(wait time.Duration) (unlock func(), err error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			d.Close()
			return nil, fmt.Errorf("locking %s: %w", f, err)
		}
	}
}
