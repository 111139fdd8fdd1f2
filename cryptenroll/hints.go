package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/crypttab"
	"luksmith/luks2"
	"luksmith/tokens"
)

// initrdTool is a program that builds initial RAM disks.
type initrdTool struct {
	shows   string // file whose presence says that the distribution uses it
	command string // what rebuilds every image
}

// initrdTools are tried in order: on systems that have several, the first one is
// what the distribution's kernel hooks call.
var initrdTools = []initrdTool{
	{"etc/NIXOS", "nixos-rebuild boot"},
	{"usr/sbin/update-initramfs", "update-initramfs -u -k all"},
	{"etc/mkinitcpio.conf", "mkinitcpio -P"},
	{"etc/mkinitfs/mkinitfs.conf", "mkinitfs"},
	{"usr/lib/booster/regenerate_images", "/usr/lib/booster/regenerate_images"},
	{"usr/bin/dracut", "dracut --regenerate-all --force"},
}

// initrdCommand is the command with which the system below root rebuilds its
// initrd, or "" when none is known.
func initrdCommand(root string) string {
	for _, tool := range initrdTools {
		if _, err := os.Stat(filepath.Join(root, tool.shows)); err == nil {
			return tool.command
		}
	}
	return ""
}

// mappingName is the name for the volume's line in crypttab: that of the active
// mapping, or the one that systemd gives to volumes without a line.
func mappingName(active []string, uuid string) string {
	switch {
	case len(active) > 0:
		return active[0]
	case !luks2.ValidUUID(uuid):
		return "luks"
	}
	return "luks-" + uuid
}

// systemCrypttab is the file that attaches the volumes of this machine.
const systemCrypttab = "/etc/crypttab"

// crypttabChange is what an enrolment wants in crypttab.
// The UUID names the device unless the header is elsewhere: udev finds it in headers
// only.
func (r *reporter) crypttabChange(p *plan, e *tokens.Enrollment) *crypttab.Change {
	uuid := p.header.UUID
	device := "UUID=" + uuid
	if r.header != "" || !luks2.ValidUUID(uuid) { // any other text must not end up among the fields
		device = p.path
	}
	if p.part != nil && !luks2.ValidUUID(uuid) {
		device = "PARTUUID=" + p.part.UUID
	}
	c := &crypttab.Change{Name: mappingName(r.tree.mappingsOf(p.path), uuid), Device: device, Key: e.KeyFile, Options: e.Crypttab,
		Grammar: slices.Concat(crypttab.Table, r.types.Grammar()),
		Match:   func(line *crypttab.Entry) bool { return luks2.ValidUUID(uuid) && line.IsAbout(uuid, p.path) }}
	if r.header != "" {
		c.Options = append(slices.Clone(c.Options), "header="+r.header)
	}
	return c
}

// crypttabLine is the line for crypttab with which an enrolment unlocks: the one that
// the volume has there, with further options, or a new one.
func (r *reporter) crypttabLine(p *plan, e *tokens.Enrollment) (line string, isNew bool) {
	c := r.crypttabChange(p, e)
	if changed, err := c.Preview(filepath.Join(r.root, systemCrypttab)); err == nil {
		return changed.New, changed.Old == ""
	}
	keyFile := "none"
	if c.Key != "" {
		keyFile = crypttab.Escape(c.Key)
	}
	return strings.Join([]string{c.Name, c.Device, keyFile, strings.Join(c.Options, ",")}, " "), true
}
