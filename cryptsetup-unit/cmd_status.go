package main

import (
	"errors"

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
	for _, line := range s.lines() {
		a.out.Linef("%s", line)
	}
	return nil
}
