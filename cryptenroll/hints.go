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

// crypttabLine is the line for /etc/crypttab with which an enrolment unlocks.
// The UUID names the device unless the header is elsewhere: udev finds it in headers
// only.
func (r *reporter) crypttabLine(p *plan, e *tokens.Enrollment) string {
	uuid, options := p.header.UUID, e.Crypttab
	device := "UUID=" + uuid
	if r.header != "" || !luks2.ValidUUID(uuid) { // any other text must not end up among the fields
		device = p.path
	}
	if p.part != nil && !luks2.ValidUUID(uuid) {
		device = "PARTUUID=" + p.part.UUID
	}
	if r.header != "" {
		options = append(slices.Clone(options), "header="+r.header)
	}
	keyFile := "none"
	if e.KeyFile != "" {
		keyFile = crypttab.Escape(e.KeyFile)
	}
	return strings.Join([]string{mappingName(r.tree.mappingsOf(p.path), uuid), device, keyFile, strings.Join(options, ",")}, " ")
}
