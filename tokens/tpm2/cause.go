package tpm2

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/eventlog"
)

// change is what is known of the machine at the enrolment of a token, and now.
type change struct {
	h      *Handler
	t      *token
	events []eventlog.Event // of this boot
}

// maxParts is how many parts of the machine are named.
const maxParts = 3

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
	b, id := c.t.boot(), c.h.Paths.startedEntry()
	if b == nil || id == "" || b.ID == id {
		return ""
	}
	return fmt.Sprintf("it is for the boot entry %s, and %s was started", c.title(b.ID), c.title(id))
}

// ofEntry names parts of the machine, those of the boot entry with its name.
func (c *change) ofEntry(parts []string) string {
	var own, others []string
	for _, p := range parts {
		if strings.HasPrefix(p, "the kernel") || strings.HasPrefix(p, "section ") || p == "the initrd" {
			own = append(own, p)
		} else {
			others = append(others, p)
		}
	}
	if entry := c.entry(); entry != "" && len(own) > 0 {
		others = slices.Insert(others, 0, listed(own)+" of "+entry)
	} else {
		others = append(own, others...)
	}
	if len(others) > maxParts {
		others = append(others[:maxParts-1:maxParts-1], "more")
	}
	return listed(others)
}

// listed joins words as people do.
func listed(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// words is about what user space extends: systemd's separator and the phases of the
// boot. Each PCR that moved has to be accounted for by them.
func (c *change) words(moved []tokens.PCRMismatch) string {
	bank, all := c.t.Bank.String(), map[string]bool{}
	for _, m := range moved {
		words, ok := eventlog.Words(bank, m.PCR, m.Enrolled, m.Actual)
		if !ok {
			if words, ok = eventlog.Words(bank, m.PCR, m.Actual, m.Enrolled); !ok {
				return ""
			}
			words = []string{"without " + words[0]}
		}
		all[words[0]] = true
	}
	switch {
	case len(all) > 1 || len(all) == 0:
		return ""
	case all[eventlog.OSSeparator]:
		return "the initrd extends os-separator now, as systemd 261 and later do, and did not when it was enrolled"
	case all["without "+eventlog.OSSeparator]:
		return "the initrd does not extend os-separator any more"
	case all["leave-initrd"]:
		return "it opens in the initrd, and this boot has left the initrd"
	case all["without enter-initrd"], all["enter-initrd"]:
		return "the initrd measures the phase enter-initrd in one of the two boots only"
	}
	for word := range all {
		return "it opens in another phase of the boot (" + strings.TrimPrefix(word, "without ") + ")"
	}
	return ""
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
	for _, e := range eventlog.Changed(old, c.events, bank, m.PCR) {
		p := e.Part()
		switch sections := c.sections(); {
		case strings.HasPrefix(p, imagesFolder) && len(sections) > 0:
			parts = append(parts, sections...)
		case p != "":
			parts = append(parts, p)
		}
	}
	return parts
}

// imagesFolder is where unified kernel images lie. PCR 4 measures one as a whole.
const imagesFolder = "/EFI/Linux/"

// sections are the parts of the kernel image that changed, as PCR 11 tells them where
// the events of the enrolment were kept.
func (c *change) sections() (parts []string) {
	bank := c.t.Bank
	old, events, _ := c.h.Paths.savedEvents(c.t.policy[0], bank, imagePCR)
	if len(events) == 0 {
		return nil
	}
	for _, e := range eventlog.Changed(old, c.events, bank.String(), imagePCR) {
		if p := e.Part(); p != "" && !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	return parts
}

// imagePCR is where systemd-stub measures the sections of its image.
const imagePCR = 11

// entry is the boot entry that was started, as people know it; "" if nobody said.
func (c *change) entry() string {
	if id := c.h.Paths.startedEntry(); id != "" {
		return c.title(id)
	}
	return ""
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
	var units []uint16
	for b = b[4:]; len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, uint16(b[0])|uint16(b[1])<<8)
	}
	name := string(utf16.Decode(units))
	name = strings.TrimSuffix(name, path.Ext(name))
	if id, counter, ok := strings.Cut(name, "+"); ok && strings.Trim(counter, "0123456789-") == "" {
		return id
	}
	return name
}

// maxEntryName bounds the variable: attributes and a file name in UTF-16.
const maxEntryName = 4 + 2*256
