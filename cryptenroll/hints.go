package main

import (
	"os"
	"path/filepath"
	"strings"
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
	if len(active) > 0 {
		return active[0]
	}
	return "luks-" + uuid
}

// crypttabLine is a line for /etc/crypttab with the given options, without key file.
func crypttabLine(name, uuid string, options []string) string {
	return strings.Join([]string{name, "UUID=" + uuid, "none", strings.Join(options, ",")}, " ")
}
