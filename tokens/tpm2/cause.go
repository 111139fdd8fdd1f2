package tpm2

import (
	"bytes"
	"cmp"
	"os"
	"path"
	"slices"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/eventlog"
)

// change is what is known of the machine at the enrolment of a token, and now.
type change struct {
	h      *Handler
	t      *token
	events []eventlog.Event // of this boot
}

// cause says in one clause what happened since the enrolment, "" if that is not known.
func (c *change) cause(moved []tokens.PCRMismatch) string {
	if len(moved) == 0 || onlyLatched(&tokens.PolicyError{PCRs: moved}) {
		return ""
	}
	if text := cmp.Or(c.otherEntry(), c.words(moved)); text != "" {
		return text
	}
	var parts []string
	for _, m := range moved {
		for _, p := range c.parts(m) {
			if !slices.Contains(parts, p) {
				parts = append(parts, p)
			}
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return c.ofEntry(parts) + " changed after it was enrolled"
}

// otherEntry is about a key for another boot entry than the one that was started.
func (c *change) otherEntry() string {
	b, id := c.t.boot(), c.started()
	if b == nil || id == "" || b.ID == id {
		return ""
	}
	return "it is for the boot entry " + c.title(b.ID) + ", and " + c.title(id) + " was started"
}

// ofEntry names parts of the machine, with the boot entry if all of them are its own.
func (c *change) ofEntry(parts []string) string {
	own := true
	for _, p := range parts {
		own = own && (strings.HasPrefix(p, "the kernel") || strings.HasPrefix(p, "section ") || p == "the initrd")
	}
	text := strings.Join(parts, ", ")
	if entry := c.entry(); own && entry != "" {
		return text + " of " + entry
	}
	return text
}

// words is about what user space extends: systemd's separator and the phases of the
// boot. Each PCR that moved has to be accounted for by them.
func (c *change) words(moved []tokens.PCRMismatch) string {
	common := ""
	for _, m := range moved {
		words, ok := eventlog.Words(c.t.Bank.String(), m.PCR, m.Enrolled, m.Actual)
		if !ok || common != "" && common != words[0] {
			return ""
		}
		common = words[0]
	}
	if common == eventlog.OSSeparator {
		return "the initrd extends os-separator now, as systemd 261 and later do, and did not when it was enrolled"
	}
	return "it opens before the phase " + common + " of the boot, which is over"
}

// parts are what a PCR that moved tells of the machine.
func (c *change) parts(m tokens.PCRMismatch) (parts []string) {
	bank := c.t.Bank.String()
	if !bytes.Equal(eventlog.Replay(c.events, bank, m.PCR), m.Actual) {
		return nil
	}
	old, ok := c.h.Paths.oldEvents(c.t, m)
	if !ok {
		return nil
	}
	parts = c.changed(old, m.PCR)
	for i, p := range parts {
		if !strings.HasPrefix(p, imagesFolder) {
			continue
		}
		// PCR 11 tells the sections, where the events of the enrolment were kept.
		old, events, _ := c.h.Paths.savedEvents(c.t.policy[0], c.t.Bank, imagePCR)
		if sections := c.changed(old, imagePCR); len(events) > 0 {
			return append(sections, parts[:i]...)
		}
	}
	return parts
}

// changed are the parts that new and changed events of a PCR are about.
func (c *change) changed(old eventlog.Old, pcr int) (parts []string) {
	for _, e := range eventlog.Changed(old, c.events, c.t.Bank.String(), pcr) {
		if p := e.Part(); p != "" {
			parts = append(parts, p)
		}
	}
	return parts
}

// imagesFolder is where unified kernel images lie. PCR 4 measures one as a whole.
const imagesFolder = "/EFI/Linux/"

// imagePCR is where systemd-stub measures the sections of its image.
const imagePCR = 11

// entry is the boot entry that was started, as people know it; "" if nobody said.
func (c *change) entry() string {
	if id := c.started(); id != "" {
		return c.title(id)
	}
	return ""
}

// started is the entry that was started: what systemd-boot says, or, as in initrds that
// do not show its variables, the name of the image that the event log has.
func (c *change) started() string {
	id := c.h.Paths.startedEntry()
	for _, e := range c.events {
		if p := strings.ReplaceAll(e.ImagePath(), `\`, "/"); id == "" && strings.HasPrefix(p, imagesFolder) {
			return entryOf(path.Base(p))
		}
	}
	return id
}

// title is what people call an entry.
func (c *change) title(id string) string {
	if c.h.EntryTitle != nil {
		return cmp.Or(c.h.EntryTitle(id), id)
	}
	return id
}

// variableEntry is where systemd-boot leaves the name of the entry that it started
// (systemd, BOOT_LOADER_INTERFACE).
const variableEntry = "/sys/firmware/efi/efivars/LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// startedEntry is the name of the entry without suffix and counter, "" if it is not
// known.
func (p Paths) startedEntry() string {
	f, err := os.Open(p.join(variableEntry))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := readLimited(f, maxEntryName)
	if err != nil || len(b) < 4 {
		return ""
	}
	return entryOf(eventlog.UTF16Text(b[4:]))
}

// entryOf is an entry's name without suffix and counter.
func entryOf(name string) string {
	name = strings.TrimSuffix(name, path.Ext(name))
	if id, counter, ok := strings.Cut(name, "+"); ok && strings.Trim(counter, "0123456789-") == "" {
		return id
	}
	return name
}

// maxEntryName bounds the variable: attributes and a file name in UTF-16.
const maxEntryName = 4 + 2*256
