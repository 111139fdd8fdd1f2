package main

import (
	"fmt"
	"strings"
	"time"

	"luksmith/internal/cli"
	"luksmith/tokens"
)

// row is one line of a block: a word in a column of its own, and what it is about.
func row(word, format string, args ...any) string {
	return fmt.Sprintf("  %-9s  ", word) + fmt.Sprintf(format, args...)
}

// rows has a row for each line of a text that may have several.
func rows(word, text string) (list []string) {
	for line := range strings.Lines(text) {
		list = append(list, row(word, "%s", strings.TrimSuffix(line, "\n")))
		word = ""
	}
	return list
}

// lines is what people see of a status: the mapping, then the report.
func (s *status) lines() (list []string) {
	if s.Map != nil {
		list = append(list, s.Name+" is attached")
		if s.Map.Suspended {
			list = append(list, rows("suspended", suspendedText(s.Name))...)
		}
		list = append(list, s.Map.lines()...)
	}
	if s.Report != nil {
		list = append(list, s.Report.lines()...)
	}
	return list
}

// suspendedText says what that means.
func suspendedText(name string) string {
	return "reads and writes wait until: " + cli.ShellWords("cryptsetup", "luksResume", name)
}

// device is the node of the volume, as far as it is known.
func (s *status) device() string {
	switch {
	case s.Map != nil && s.Map.Image != "":
		return s.Map.Image
	case s.Map != nil:
		return s.Map.Source
	case s.Report != nil:
		return s.Report.Device
	}
	return ""
}

// summary is one line about the volume.
func (s *status) summary() string {
	switch {
	case s.Error != "":
		return s.Error
	case s.Active && s.Map.Suspended:
		return "suspended; " + suspendedText(s.Name)
	case s.Active && s.Map.Doomed:
		return "attached, detached when nothing uses it"
	case s.Active && s.Report != nil && s.Report.Opened != nil:
		return "attached by " + s.Report.Opened.String()
	case s.Active:
		return "attached"
	case s.Report != nil && s.Report.Error != "":
		first, _, _ := strings.Cut(s.Report.Error, "\n")
		return "not attached: " + strings.TrimPrefix(first, "attaching "+s.Name+": ")
	}
	return "not attached"
}

func (m *mapInfo) lines() []string {
	list := []string{row("node", "%s", m.Node)}
	if m.Image != "" {
		list = append(list, row("image", "%s (%s)", m.Image, m.Source))
	} else {
		list = append(list, row("device", "%s", m.Source))
	}
	key := "in the kernel keyring"
	switch {
	case m.Suspended:
		key = "that the kernel may not have"
	case m.KeyInTable:
		key = "in the table"
	}
	access := "read and write"
	if m.ReadOnly {
		access = "read only"
	}
	use := "no"
	switch {
	case m.Open > 0 && m.Doomed:
		use = "yes; detached when that ends"
	case m.Open > 0:
		use = "yes"
	}
	list = append(list,
		row("uuid", "%s", m.UUID),
		row("cipher", "%s, key of %d bits %s", m.Cipher, m.KeyBits, key),
		row("size", "%s from byte %d on, sectors of %d bytes", sizeText(m.Size), m.Offset, m.SectorSize),
		row("access", "%s", access))
	if m.Flags != "" {
		list = append(list, row("flags", "%s", m.Flags))
	}
	return append(list, row("in use", "%s", use))
}

// sizeText is a size for people: "20.0 GiB".
func sizeText(bytes uint64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	n, unit := float64(bytes)/1024, 0
	for n >= 1024 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", n, units[unit])
}

// lines tells of the last time that attach ran for the volume.
func (r *report) lines() []string {
	result := r.Result
	if r.Error != "" {
		result += fmt.Sprintf(", exit status %d", r.Exit)
	}
	list := []string{"last run of attach: " + result, row("began", "%s", r.Started)}
	if r.Opened != nil {
		list = append(list, row("opened by", "%s", r.Opened))
	}
	if r.Identity != "" {
		list = append(list, row("identity", "%s", r.Identity))
	}
	if len(r.Stages) > 0 {
		times := make([]string, len(r.Stages))
		for i, s := range r.Stages {
			times[i] = s.Name + " " + millis(s.Millis)
		}
		list = append(list, row("times", "%s", strings.Join(times, ", ")))
	}
	for _, f := range r.Failures {
		list = append(list, rows("failed", fmt.Sprintf("%s, after %s: %s", f.Way, millis(f.Millis), f.Error))...)
	}
	for _, w := range r.Warnings {
		list = append(list, rows("warning", w)...)
	}
	if r.Error != "" && !r.explained() {
		list = append(list, rows("error", r.Error)...)
	}
	return list
}

// explained reports whether the error is that every way failed, nothing else.
func (r *report) explained() bool {
	ways := make([]string, len(r.Failures))
	for i, f := range r.Failures {
		ways[i] = f.Way + ": " + f.Error
	}
	return len(ways) > 0 && strings.HasSuffix(r.Error, ": "+strings.Join(ways, "\n"))
}

// String is `tpm2 token, keyslot 2 (tpm2, "laptop"), token 1`.
func (o *opened) String() string {
	text := o.By
	switch {
	case o.Keyslot != nil && o.Type != "":
		text += ", " + tokens.SlotText(*o.Keyslot, o.Type, o.Label)
	case o.Keyslot != nil:
		text += fmt.Sprintf(", keyslot %d", *o.Keyslot)
	}
	if o.Token != nil {
		text += fmt.Sprintf(", token %d", *o.Token)
	}
	return text
}

// millis is a time for people: "820ms", "3.21s".
func millis(n int64) string {
	d := time.Duration(n) * time.Millisecond
	if d >= time.Second {
		d = d.Round(10 * time.Millisecond)
	}
	return d.String()
}
