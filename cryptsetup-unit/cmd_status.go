package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/luks2/dmcrypt"
)

// statusVerb is status VOLUME.
func statusVerb() ([]flag, func(*app, []string) error) {
	var mode cli.JSONMode
	flags := []flag{{"json", mode.Type(), "print one JSON document", mode.Set}}
	return flags, func(a *app, args []string) error { return a.status(args[0], mode) }
}

// status is the kernel's view of a mapping and the report of how it came about.
type status struct {
	Name   string   `json:"name"`
	Active bool     `json:"active"`
	Map    *mapInfo `json:"mapping,omitempty"`
	Report *report  `json:"report,omitempty"`
}

// mapInfo is the part of dmcrypt.Info that people ask for.
type mapInfo struct {
	Node       string `json:"node"`
	UUID       string `json:"uuid"`
	Source     string `json:"source"`
	Image      string `json:"image,omitempty"`
	Cipher     string `json:"cipher"`
	KeyBits    int    `json:"keyBits"`
	KeyInTable bool   `json:"keyInTable"`
	Offset     uint64 `json:"offset"` // bytes
	Size       uint64 `json:"size"`   // bytes
	SectorSize int    `json:"sectorSize"`
	Flags      string `json:"flags,omitempty"`
	ReadOnly   bool   `json:"readOnly"`
	Open       int    `json:"open"`
	Doomed     bool   `json:"doomed,omitempty"`
}

// status prints what is known. The exit status is 4 if nothing is mapped.
func (a *app) status(name string, mode cli.JSONMode) error {
	if err := crypttab.CheckName(name); err != nil {
		return err
	}
	s := &status{Name: name}
	info, err := dmcrypt.Status(name)
	switch {
	case errors.Is(err, dmcrypt.ErrNotActive), errors.Is(err, dmcrypt.ErrUnsupported):
	case err != nil:
		return err
	default:
		s.Active, s.Map = true, describeMapping(info)
	}
	if s.Report, err = readReport(a.root, name); err != nil {
		return err
	}
	if err := a.printStatus(s, mode); err != nil {
		return err
	}
	if !s.Active {
		return notAttached(name)
	}
	return nil
}

// notAttached gives exit status 4.
type notAttached string

func (n notAttached) Error() string { return string(n) + " is not attached" }

// Is makes errors.Is(err, cli.ErrWrongDevice) true.
func (notAttached) Is(target error) bool { return target == cli.ErrWrongDevice }

func describeMapping(i *dmcrypt.Info) *mapInfo {
	return &mapInfo{Node: i.Node, UUID: i.UUID, Source: i.Source, Image: i.Image, Cipher: i.Cipher, KeyBits: 8 * i.KeySize, KeyInTable: i.KeyName == "",
		Offset: i.Offset, Size: i.Size, SectorSize: i.SectorSize, Flags: i.Flags.String(), ReadOnly: i.ReadOnly, Open: i.Open, Doomed: i.Doomed}
}

func (a *app) printStatus(s *status, mode cli.JSONMode) error {
	if mode.On() {
		return a.out.JSON(mode, s)
	}
	if m := s.Map; m != nil {
		a.out.Linef("%s over %s", m.Node, strings.TrimSpace(m.Source+" "+m.Image))
		a.out.Linef("  uuid     %s", m.UUID)
		a.out.Linef("  cipher   %s, %d bits, sectors of %d bytes", m.Cipher, m.KeyBits, m.SectorSize)
		a.out.Linef("  flags    %s", orNone(m.Flags))
		a.out.Linef("  opened   %d times", m.Open)
	}
	if r := s.Report; r != nil {
		a.printReport(r)
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// printReport prints the report for people.
func (a *app) printReport(r *report) {
	a.out.Linef("%s %s", r.Started, r.Result)
	if r.Opened != nil {
		place := ""
		if r.Opened.Keyslot != nil {
			place = fmt.Sprintf(", keyslot %d", *r.Opened.Keyslot)
		}
		if r.Opened.Token != nil {
			place += fmt.Sprintf(", token %d", *r.Opened.Token)
		}
		a.out.Linef("  by       %s%s", r.Opened.By, place)
	}
	if r.Error != "" {
		a.out.Linef("  error    %s", r.Error)
	}
	for _, s := range r.Stages {
		a.out.Linef("  %-8s %v", s.Name, time.Duration(s.Millis)*time.Millisecond)
	}
	for _, f := range r.Failures {
		a.out.Linef("  failed   %s: %s", f.Way, f.Error)
	}
	if r.Identity != "" {
		a.out.Linef("  identity %s", r.Identity)
	}
}
