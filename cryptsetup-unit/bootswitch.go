package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/crypttab"
)

// bootSwitchPath is the one file that switches the hooks of the packages on.
const bootSwitchPath = "/etc/luksmith/boot"

// maxBootSwitch bounds what is read of it.
const maxBootSwitch = 64 << 10

// bootSwitch says which volumes the hooks may try before the program that the
// distribution has for them. The zero value is "none".
type bootSwitch struct {
	all   bool
	names []string
}

// on reports whether a volume is meant.
func (s bootSwitch) on(name string) bool { return s.all || slices.Contains(s.names, name) }

// parseBootSwitch reads "all" or names of volumes, spelled as in crypttab, divided by
// white space. "#" begins a comment.
func parseBootSwitch(text string) (s bootSwitch) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for word := range strings.FieldsSeq(line) {
			if word == "all" {
				s.all = true
				continue
			}
			s.names = append(s.names, crypttab.Unescape(word))
		}
	}
	return s
}

// readBootSwitch returns what is switched on: nothing without the file, and nothing
// for this boot with luksmith=no on the kernel command line. there says whether the
// file exists.
func (a *app) readBootSwitch() (s bootSwitch, there bool, err error) {
	off, err := a.offForThisBoot()
	if err != nil {
		return bootSwitch{}, false, err
	}
	path := filepath.Join(a.root, bootSwitchPath)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bootSwitch{}, false, nil
	}
	if err == nil && info.Size() > maxBootSwitch {
		err = fmt.Errorf("%d bytes are too many", info.Size())
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return bootSwitch{}, false, fmt.Errorf("reading %s: %w", path, err)
	}
	if off {
		return bootSwitch{}, true, nil
	}
	return parseBootSwitch(string(text)), true, nil
}

// offForThisBoot looks for luksmith=no on the kernel command line. The last one of
// several words counts.
func (a *app) offForThisBoot() (off bool, err error) {
	text, err := a.kernelText()
	if err != nil {
		return false, err
	}
	for word := range strings.FieldsSeq(text) {
		if value, ok := strings.CutPrefix(word, "luksmith="); ok {
			on, err := crypttab.ParseBool(value)
			off = err == nil && !on
		}
	}
	return off, nil
}
