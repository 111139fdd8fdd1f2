package main

import (
	"errors"
	"slices"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/luks2/dmcrypt"
)

// statusVerb is status [VOLUME].
func statusVerb() ([]flag, func(*app, []string) error) {
	var mode cli.JSONMode
	flags := []flag{{"json", mode.Type(), "print one JSON document", mode.Set}}
	return flags, func(a *app, args []string) error {
		if len(args) == 0 {
			return a.statusOfAll(mode)
		}
		return a.status(crypttab.Unescape(args[0]), mode) // see entry
	}
}

// mappings are what the kernel has mapped: luks2/dmcrypt, or a fake in tests.
type mappings struct {
	names  func() ([]string, error)
	status func(name string) (*dmcrypt.Info, error)
}

// status is the kernel's view of a mapping and the report of how it came about.
type status struct {
	Name   string   `json:"name"`
	Active bool     `json:"active"`
	Map    *mapInfo `json:"mapping,omitempty"`
	Report *report  `json:"report,omitempty"`
	Error  string   `json:"error,omitempty"` // why that is all
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
	Suspended  bool   `json:"suspended,omitempty"` // reads and writes wait
}

// status prints what is known. The exit status is 4 if nothing is mapped.
func (a *app) status(name string, mode cli.JSONMode) error {
	s, err := a.statusOf(name)
	if err != nil {
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

func (a *app) statusOf(name string) (*status, error) {
	if err := crypttab.CheckName(name); err != nil {
		return nil, err
	}
	s := &status{Name: name}
	info, err := a.mappings.status(name)
	switch {
	case errors.Is(err, dmcrypt.ErrNotActive), errors.Is(err, dmcrypt.ErrUnsupported):
	case err != nil:
		return nil, err
	default:
		s.Active, s.Map = true, describeMapping(info)
	}
	s.Report, err = readReport(a.root, name)
	return s, err
}

// statusOfAll prints a line for each volume that is mapped or stands in crypttab.
func (a *app) statusOfAll(mode cli.JSONMode) error {
	names, err := a.volumeNames()
	if err != nil {
		return err
	}
	list := []*status{}
	for _, name := range names {
		s, err := a.statusOf(name)
		if s == nil {
			s = &status{Name: name}
		}
		if err != nil {
			s.Error = err.Error()
		}
		list = append(list, s)
	}
	if mode.On() {
		return a.out.JSON(mode, map[string]any{"volumes": list})
	}
	if len(list) == 0 {
		a.out.Linef("No volume is attached, and crypttab names none.")
		return nil
	}
	for _, s := range list {
		a.out.Linef("%s (%s): %s", s.Name, orDash(s.device()), s.summary())
	}
	return nil
}

// volumeNames are those of crypttab in their order, then what is mapped besides.
func (a *app) volumeNames() ([]string, error) {
	entries, err := a.entries(a.crypttabPath(""), inInitrd())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	mapped, err := a.mappings.names()
	if err != nil {
		return nil, err
	}
	for _, name := range mapped {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// notAttached gives exit status 4.
type notAttached string

func (n notAttached) Error() string { return string(n) + " is not attached" }

// Is makes errors.Is(err, cli.ErrWrongDevice) true.
func (notAttached) Is(target error) bool { return target == cli.ErrWrongDevice }

func describeMapping(i *dmcrypt.Info) *mapInfo {
	return &mapInfo{Node: i.Node, UUID: i.UUID, Source: i.Source, Image: i.Image, Cipher: i.Cipher, KeyBits: 8 * i.KeySize, KeyInTable: i.KeyName == "" && !i.Suspended, Suspended: i.Suspended,
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
