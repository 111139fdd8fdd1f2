package bootchain

import (
	"fmt"
	"path"
	"strings"

	"luksmith/tokens/tpm2/bootchain/bls"
	"luksmith/tokens/tpm2/bootchain/chain"
)

// Entry is something that a boot loader offers to start.
type Entry struct {
	// ID is the name of its file without counter and suffix.
	ID string
	// Title is for people: what the entry or the image calls itself.
	Title string
	// MachineID is of the system that the entry belongs to, "" if it does not say.
	MachineID string
	Target    chain.Target
	// Err is why the entry cannot be read.
	Err error
}

// maxEntries bounds the entries that are looked at.
const maxEntries = 100

// Entries lists what systemd-boot offers from the ESP and, if there is one, the
// extended boot partition: files of entries, and unified kernel images (Boot Loader
// Specification, type #1 and #2). Entries for other machines are left out.
func Entries(volumes ...chain.Files) ([]Entry, error) {
	var list []Entry
	for _, v := range volumes {
		files, err := v.List("/loader/entries")
		if err != nil {
			return nil, fmt.Errorf("listing entries: %w", err)
		}
		for _, n := range files {
			if offered(n, ".conf") {
				list = append(list, readEntry(v, "/loader/entries/"+n)...)
			}
		}
		images, err := v.List("/EFI/Linux")
		if err != nil {
			return nil, fmt.Errorf("listing images: %w", err)
		}
		for _, n := range images {
			if offered(n, ".efi") {
				list = append(list, entryOf(v, "/EFI/Linux/"+n))
			}
		}
	}
	if len(list) > maxEntries {
		return nil, fmt.Errorf("%d entries, at most %d are looked at", len(list), maxEntries)
	}
	return list, nil
}

// offered reports whether the loader looks at a file of this name (systemd 257
// src/boot/boot.c, config_load_type1_entries and config_load_type2_entries; 252 alike).
func offered(name, suffix string) bool {
	return strings.EqualFold(path.Ext(name), suffix) && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "auto-")
}

func entryOf(v chain.Files, file string) Entry {
	id, _, _ := bls.SplitName(path.Base(file))
	return Entry{ID: id, Target: chain.Target{Files: v, Path: file}}
}

// readEntry reads the file of a type #1 entry. One for another architecture is none.
func readEntry(v chain.Files, file string) []Entry {
	e := entryOf(v, file)
	f, err := v.Open(file)
	var text []byte
	if err == nil {
		text, err = f.Head(bls.MaxSize + 1)
	}
	var b *bls.Entry
	if err == nil {
		b, err = bls.Parse(text)
	}
	if err != nil {
		e.Err = err
		return []Entry{e}
	}
	if b.Architecture != "" && b.Architecture != "x64" {
		return nil
	}
	e.Title, e.MachineID = strings.TrimSpace(b.Title+" "+b.Version), b.MachineID
	return []Entry{e}
}
