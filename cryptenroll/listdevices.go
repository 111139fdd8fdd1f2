package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// listSecurityDevices is --tpm2-device=list and its kind.
func (a *app) listSecurityDevices(ctx context.Context, lister tokens.DeviceLister) error {
	found, err := lister.Devices(ctx)
	if err != nil {
		return err
	}
	if a.options.json.On() {
		rows := make([]map[string]string, len(found.Rows))
		for i, row := range found.Rows {
			rows[i] = map[string]string{}
			for c, name := range found.Columns {
				rows[i][strings.ToLower(name)] = row[c]
			}
		}
		return a.out.JSON(a.options.json, rows)
	}
	if len(found.Rows) == 0 {
		kind, text := noDevices(lister)
		a.msg.Plain(cli.LevelInfo, "%s", a.manner.noDevices(kind, text))
		return nil
	}
	t := &cli.Table{Rows: found.Rows}
	for _, name := range found.Columns {
		t.Columns = append(t.Columns, cli.Column{Name: name})
	}
	return a.out.Table(t)
}

// noDevices says that there is no security device of a type, and where it was looked
// for.
func noDevices(lister tokens.DeviceLister) (kind, text string) {
	h, ok := lister.(tokens.Handler)
	if !ok {
		return "", "No suitable device found."
	}
	switch h.Name() { // those whose devices need something to be seen
	case "tpm2":
		return h.Name(), "No TPM found (no /dev/tpmrm*). It may be switched off in the firmware setup, or its driver is not loaded."
	case "fido2":
		return h.Name(), "No FIDO2 key found. Plug one in, or try as root: udev's rules decide who may use it."
	case "pkcs11":
		return h.Name(), "No key on a smartcard or other PKCS#11 token found. Put the card in; it needs a PKCS#11 module, such as OpenSC's."
	}
	return h.Name(), "No suitable " + title(h.Name()) + " device found."
}

// blockDevice is one line of --list-devices.
type blockDevice struct {
	Path  string `json:"device"`
	UUID  string `json:"uuid"`
	Label string `json:"label"`
}

// listBlockDevices is --list-devices: the block devices with a LUKS2 header.
func (a *app) listBlockDevices(ctx context.Context) error {
	found := []blockDevice{}
	var denied []string
	for _, path := range a.tree.blockDevices() {
		dev, err := luks2.Open(path, &luks2.OpenOptions{ReadOnly: true})
		if err != nil {
			continue
		}
		h, err := dev.Header(ctx)
		switch {
		case err == nil:
			found = append(found, blockDevice{path, h.UUID, h.Label})
		case errors.Is(err, fs.ErrPermission):
			denied = append(denied, path)
		}
	}
	if len(denied) > 0 {
		a.msg.Warning("these could not be read (permission denied) and are left out: " + strings.Join(denied, ", "))
	}
	if a.options.json.On() {
		return a.out.JSON(a.options.json, found)
	}
	if len(found) == 0 {
		a.msg.Err.Linef("No LUKS2 volume found.")
		return nil
	}
	t := &cli.Table{Columns: []cli.Column{{Name: "DEVICE"}, {Name: "UUID"}, {Name: "LABEL"}}}
	for _, d := range found {
		t.Rows = append(t.Rows, []string{d.Path, d.UUID, d.Label})
	}
	return a.out.Table(t)
}

// blockDevices are the nodes of all block devices that can hold a volume.
func (b blockTree) blockDevices() []string {
	entries, _ := os.ReadDir(filepath.Join(b.sys, "class/block"))
	var paths []string
	for _, e := range entries {
		size, err := os.ReadFile(filepath.Join(b.sys, "class/block", e.Name(), "size"))
		if err != nil || strings.TrimSpace(string(size)) == "0" || strings.HasPrefix(e.Name(), "ram") {
			continue
		}
		paths = append(paths, filepath.Join(b.dev, strings.ReplaceAll(e.Name(), "!", "/")))
	}
	slices.Sort(paths)
	return paths
}
