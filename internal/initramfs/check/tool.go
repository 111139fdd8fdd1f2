package check

import "luksmith/internal/initramfs/image"

// tool is what made an image.
type tool struct {
	name      string
	rebuild   string
	starters  []string // what has to be in the image besides the program
	crypttabs []string // where the image has its crypttab
}

// toolOf recognises a tool by what only its images have.
func toolOf(im *image.Image) tool {
	switch {
	case im.Has("scripts/functions") && im.Has("conf/initramfs.conf"):
		return tool{"initramfs-tools", "update-initramfs -u -k all", []string{lib + "first", "scripts/local-top/luksmith"}, []string{"cryptroot/crypttab", "etc/crypttab"}}
	case im.Has("usr/lib/dracut") || im.Has("usr/lib/initrd-release") && im.Has("usr/lib/dracut-lib.sh"):
		return tool{"dracut", "dracut --force --regenerate-all", dracutStarters(im), []string{"etc/crypttab"}}
	case im.Has("buildconfig") && im.Has("usr/lib/systemd/systemd"):
		return tool{"mkinitcpio", "mkinitcpio -P", systemdStarters(), []string{"etc/crypttab"}}
	case im.Has("buildconfig"):
		return tool{"mkinitcpio", "mkinitcpio -P", []string{lib + "first", "hooks/luksmith"}, []string{"etc/crypttab"}}
	}
	return tool{name: "unknown", rebuild: "make the image again", crypttabs: []string{"etc/crypttab", "cryptroot/crypttab"}}
}

func dracutStarters(im *image.Image) []string {
	if im.Has("usr/lib/systemd/systemd") {
		return systemdStarters()
	}
	return []string{lib + "first", "usr/sbin/cryptroot-ask.stock"}
}

func systemdStarters() []string {
	return []string{lib + "first", lib + "luksmith-generator", "usr/lib/systemd/system-generators/luksmith-generator"}
}
