package check

import (
	"slices"

	"luksmith/internal/initramfs/image"
)

// tool is what made an image.
type tool struct {
	name      string
	rebuild   string
	starters  []string // what has to be in the image besides the program
	crypttabs []string // where the image has its crypttab
	discovers bool     // luksmith finds root by the partition table
	finders   []string // what does so, if it is none of starters; one is enough
}

// toolOf recognises a tool by what only its images have.
func toolOf(im *image.Image) tool {
	crypttabs := []string{"etc/crypttab"}
	switch systemd := im.Has("usr/lib/systemd/systemd"); {
	case im.Has("scripts/functions") && im.Has("conf/initramfs.conf"):
		return tool{name: "initramfs-tools", rebuild: "update-initramfs -u -k all", starters: []string{lib + "first", "scripts/local-top/luksmith"},
			crypttabs: []string{"cryptroot/crypttab", "etc/crypttab", "etc/luksmith/alone"}, discovers: true}
	case isDracut(im) && !systemd:
		return tool{"dracut", dracutRebuild, []string{lib + "first", "usr/sbin/cryptroot-ask.stock"}, crypttabs, true, dracutFinders()}
	case isDracut(im):
		return tool{name: "dracut", rebuild: dracutRebuild, starters: systemdStarters(), crypttabs: crypttabs}
	case im.Has("buildconfig") && systemd:
		return tool{name: "mkinitcpio", rebuild: "mkinitcpio -P", starters: systemdStarters(), crypttabs: crypttabs}
	case im.Has("buildconfig"):
		return tool{name: "mkinitcpio", rebuild: "mkinitcpio -P", starters: []string{lib + "first", "hooks/luksmith"}, crypttabs: crypttabs, discovers: true}
	}
	return tool{name: "unknown", rebuild: "make the image again", crypttabs: []string{"etc/crypttab", "cryptroot/crypttab"}}
}

// calls are the commands that initrd/first needs.
func (t *tool) calls() []string {
	if !slices.Contains(t.starters, lib+"first") {
		return nil
	}
	return []string{"sh", "sleep"}
}

func isDracut(im *image.Image) bool {
	return im.Has("usr/lib/dracut") || im.Has("usr/lib/initrd-release") && im.Has("usr/lib/dracut-lib.sh")
}

const dracutRebuild = "dracut --force --regenerate-all"

// dracutFinders is a hook, which several versions have in several places.
func dracutFinders() (list []string) {
	for _, dir := range []string{"usr/lib/dracut/hooks", "var/lib/dracut/hooks"} {
		list = append(list, dir+"/initqueue/settled/91-discover.sh")
	}
	return list
}

func systemdStarters() []string {
	return []string{lib + "first", lib + "luksmith-generator", "usr/lib/systemd/system-generators/luksmith-generator"}
}
