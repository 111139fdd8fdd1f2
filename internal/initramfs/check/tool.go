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
	// named reports whether a kernel command line names the volume; nil: none can.
	named   func(c *checker, line string) bool
	finders []string // what does so, if it is none of starters; one is enough
}

// toolOf recognises a tool by what only its images have.
func toolOf(im *image.Image) tool {
	crypttabs := []string{"etc/crypttab"}
	switch systemd := im.Has("usr/lib/systemd/systemd"); {
	case im.Has("scripts/functions") && im.Has("conf/initramfs.conf"):
		return tool{name: "initramfs-tools", rebuild: "update-initramfs -u -k all", starters: []string{lib + "first", "scripts/local-top/luksmith"},
			crypttabs: []string{"cryptroot/crypttab", "etc/crypttab", "etc/luksmith/alone"}, discovers: true}
	case isDracut(im) && !systemd:
		return tool{name: "dracut", rebuild: dracutRebuild, starters: []string{lib + "first", "usr/sbin/cryptroot-ask.stock"},
			crypttabs: crypttabs, discovers: true, finders: dracutFinders(), named: (*checker).byLuksWords}
	case isDracut(im):
		return tool{name: "dracut", rebuild: dracutRebuild, starters: systemdStarters(), crypttabs: crypttabs, named: (*checker).byLuksWords}
	case im.Has("buildconfig") && systemd:
		return tool{name: "mkinitcpio", rebuild: "mkinitcpio -P", starters: systemdStarters(), crypttabs: crypttabs, named: (*checker).byLuksWords}
	case im.Has("buildconfig"):
		return tool{name: "mkinitcpio", rebuild: "mkinitcpio -P", starters: []string{lib + "first", "hooks/luksmith"}, discovers: true, named: (*checker).byCryptdevice}
	}
	return tool{name: "unknown", rebuild: "make the image again", crypttabs: []string{"etc/crypttab", "cryptroot/crypttab"}}
}

// remedy is how a volume is named to the image.
func (t *tool) remedy() string {
	const option = "give the volume's line in /etc/crypttab the option initramfs or x-initrd.attach"
	switch {
	case t.named == nil:
		return option
	case len(t.crypttabs) == 0:
		return "name the volume by cryptdevice=DEVICE:NAME on the kernel command line"
	case t.name == "mkinitcpio":
		return "write the volume's line into /etc/crypttab.initramfs, or name it by rd.luks.name= on the kernel command line"
	}
	return option + ", or name it by rd.luks.name= on the kernel command line"
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
