package main

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/internal/initramfs"
	"luksmith/luks2"
)

// needsVerb is `initrd needs`, for hooks that make an image.
func needsVerb() ([]flag, func(*app, []string) error) {
	var path string
	var json cli.JSONMode
	initrd := false
	flags := []flag{
		{"crypttab", "FILE", "the crypttab of the image", func(v string) error { path = v; return nil }},
		{"initrd", "", "obey rd.luks.* too", func(string) error { initrd = true; return nil }},
		{"json", json.Type(), "print one JSON document", json.Set},
	}
	return flags, func(a *app, _ []string) error { return a.printNeeds(path, initrd, json) }
}

// printNeeds prints a word and a value on each line: what hooks put into an image.
func (a *app) printNeeds(path string, initrd bool, json cli.JSONMode) error {
	needs, alone, missing, err := a.needs(path, initrd)
	if err != nil {
		return err
	}
	if json.On() {
		none := []string{}
		return a.out.JSON(json, map[string][]string{"module": append(none, needs.Modules...), "modules": append(none, needs.Folders...),
			"helper": append(none, needs.Helpers...), "file": append(none, needs.Files...), "alone": append(none, alone...), "missing": append(none, missing...)})
	}
	for _, list := range []struct {
		word   string
		values []string
	}{{"module", needs.Modules}, {"modules", needs.Folders}, {"helper", needs.Helpers}, {"file", needs.Files}, {"alone", alone}, {"missing", missing}} {
		for _, v := range list.values {
			a.out.Linef("%s %s", list.word, v)
		}
	}
	return nil
}

// needs is what the volumes of a crypttab call for, within the switch file. alone are
// device and name of those that no second program may open; missing says whose header
// could not be read.
func (a *app) needs(path string, initrd bool) (n *initramfs.Needs, alone, missing []string, err error) {
	on, there, err := a.readBootSwitch()
	if err != nil {
		return nil, nil, nil, err
	}
	file := &crypttab.File{}
	if path != os.DevNull { // hooks without a crypttab
		if file, err = crypttab.Read(a.crypttabPath(path)); err != nil {
			return nil, nil, nil, err
		}
	}
	kernel, err := a.kernelLine(initrd)
	if err != nil {
		return nil, nil, nil, err
	}
	entries, _ := kernel.Select(file)
	n = &initramfs.Needs{}
	known := 0
	for _, e := range entries {
		j, _, err := newJob(e, a.grammar())
		if err != nil || there && !on.on(e.Name) {
			continue
		}
		known++
		if j.mayOnlyBeOurs() {
			alone = append(alone, e.Source.UdevLinks()[0]+" "+crypttab.Escape(e.Name))
		}
		if why := a.addNeeds(n, j); why != "" {
			missing = append(missing, why)
		}
	}
	if known == 0 { // a boot loader may name the volume
		n.AddUnknown(a.types())
	}
	return n, alone, missing, nil
}

// addNeeds adds what one volume calls for, or everything and why.
func (a *app) addNeeds(n *initramfs.Needs, j *job) (missing string) {
	for _, l := range []crypttab.Location{j.entry.Key, j.header} {
		if info, err := os.Stat(l.Path); l.Device == nil && err == nil && info.Mode().IsRegular() {
			n.AddFile(l.Path)
		}
	}
	types := a.types()
	for _, h := range types {
		if slices.Contains(j.options.Types, h.Name()) {
			n.AddType(h)
		}
	}
	v, err := a.volumeNow(j)
	if err != nil {
		n.AddUnknown(types)
		return fmt.Sprintf("%s: the header cannot be read now (%v), so everything is taken that it may call for", j.entry.Name, err)
	}
	n.AddCipher(v.mapping.Segment.Encryption)
	for _, h := range types {
		if slices.ContainsFunc(v.tokens, func(t luks2.Token) bool { return t.Type == h.Type() }) {
			n.AddType(h)
		}
	}
	return ""
}

// volumeNow reads the header of a volume whose device is there.
func (a *app) volumeNow(j *job) (*volume, error) {
	node, err := resolveDevice(j.entry.Source)
	if err != nil {
		return nil, err
	}
	if j.header.Device != nil || strings.HasPrefix(j.header.Path, "/dev/") {
		return nil, fmt.Errorf("header=%s: %w", j.header, fs.ErrNotExist)
	}
	d, err := luks2.Open(node, &luks2.OpenOptions{Header: j.header.Path, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return openVolume(a.ctx, d, a.types())
}
