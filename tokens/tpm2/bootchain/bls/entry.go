// Package bls reads the entries of the Boot Loader Specification as systemd-boot
// does: the small files below /loader/entries, and the names of unified kernel
// images below /EFI/Linux, with the counters of boot assessment in both.
//
// The files lie on a file system without owners. Everything in them is hostile
// input; what systemd-boot might take differently from what is read here is an
// error, not a guess.
package bls

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
)

// MaxSize bounds an entry. systemd-boot reads larger ones; nobody writes them.
const MaxSize = 64 << 10

// ErrUnknown: the entry holds something whose effect on the boot is not known here.
var ErrUnknown = errors.New("entry with parts that are not known here")

// Entry is a type #1 entry: one file below /loader/entries. Paths are as written,
// relative to the root of the file system that the entry is on.
type Entry struct {
	Title, Version, MachineID, SortKey, Architecture string

	Linux   string   // kernel, an EFI program
	UKI     string   // unified kernel image, since systemd 258
	Initrd  []string // in the order of their lines
	Extra   []string // files handed to a unified kernel image
	Options []string // one for each line
	Other   []string // keys that change what is started: efi, devicetree, profile, …
}

// describes reports whether a key only names an entry (Boot Loader Specification
// §"Type #1 Boot Loader Specification Entries").
func describes(key string) bool {
	switch key {
	case "title", "version", "machine-id", "sort-key", "architecture", "grub_users", "grub_arg", "grub_class", "id":
		return true
	}
	return false
}

// Parse reads the file of an entry.
func Parse(b []byte) (*Entry, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrUnknown, len(b))
	}
	e := &Entry{}
	for line := range bytes.Lines(b) {
		// systemd-boot cuts lines at any of CR and LF (systemd 262
		// src/boot/util.c, line_get_key_value).
		key, value, err := splitLine(strings.Trim(string(line), " \t\r\n"))
		if err != nil {
			return nil, err
		}
		if key != "" {
			e.set(key, value)
		}
	}
	return e, nil
}

// splitLine separates key and value. Characters that the loader and this package
// might understand differently are refused.
func splitLine(line string) (key, value string, err error) {
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return r != '\t' && (r < ' ' || r > '~') }); i >= 0 {
		if key, _, _ = strings.Cut(line, " "); describes(key) {
			return "", "", nil // a title may be in any language
		}
		return "", "", fmt.Errorf("%w: character %q", ErrUnknown, line[i])
	}
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return "", "", nil // a key alone is left out by the loader too
	}
	key, value = line[:i], strings.TrimLeft(line[i:], " \t")
	if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	return key, value, nil
}

func (e *Entry) set(key, value string) {
	switch key {
	case "title":
		e.Title = value
	case "version":
		e.Version = value
	case "machine-id":
		e.MachineID = value
	case "sort-key":
		e.SortKey = value
	case "architecture":
		e.Architecture = strings.ToLower(value)
	case "linux":
		e.Linux = value
	case "uki":
		e.UKI = value
	case "initrd":
		e.Initrd = append(e.Initrd, value)
	case "extra":
		e.Extra = append(e.Extra, value)
	case "options":
		e.Options = append(e.Options, value)
	default:
		if !describes(key) {
			e.Other = append(e.Other, key)
		}
	}
}

// Counter is what boot assessment writes into a file name: NAME+LEFT-DONE.conf
// (systemd, AUTOMATIC_BOOT_ASSESSMENT). It is renamed by the loader at each try,
// and taken off when a boot is good.
type Counter struct{ Left, Done int }

// SplitName separates the name of a file from its counter and its suffix:
// "arch+3-1.conf" is "arch", 3 left and 1 done. Without a counter it is nil.
func SplitName(name string) (id string, c *Counter, suffix string) {
	suffix = path.Ext(name)
	id = strings.TrimSuffix(name, suffix)
	i := strings.LastIndexByte(id, '+')
	if i < 0 {
		return id, nil, suffix
	}
	left, done, both := strings.Cut(id[i+1:], "-")
	c = &Counter{}
	var ok bool
	if c.Left, ok = number(left); !ok {
		return id, nil, suffix
	}
	if c.Done, ok = number(done); both && !ok {
		return id, nil, suffix
	}
	return id[:i], c, suffix
}

// maxDigits keeps counters within an int.
const maxDigits = 9

func number(s string) (n int, ok bool) {
	if s == "" || len(s) > maxDigits {
		return 0, false
	}
	for _, r := range s {
		if r < '0' || r > '9' {
			return 0, false
		}
		n = 10*n + int(r-'0')
	}
	return n, true
}
