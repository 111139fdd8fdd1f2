package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// guestModules are in every initrd. Most load by themselves, through the guest's
// /sbin/modprobe.
func guestModules() []string {
	return []string{
		"dm-mod", "dm-crypt", "dm-integrity", "loop", "brd", "raid1", "md-mod",
		"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "virtio_scsi", "sd_mod", "sr_mod", "scsi_debug", "9p", "9pnet_virtio",
		"ext4", "vfat", "xfs", "btrfs", "isofs", "nls_ascii", "nls_cp437", "nls_iso8859-1", "overlay", "autofs4",
		"uhid", "hid-generic", "usbhid", "xhci-pci", "usb-storage",
		"xts", "ecb", "cbc", "essiv", "aesni-intel", "cryptd", "algif_skcipher", "algif_hash",
		"sha256_generic", "sha512_generic", "sha256-ssse3", "sha512-ssse3", "sha1_generic", "crc32c_generic", "crc32c-intel",
		"authenc", "gcm", "twofish_generic", "serpent_generic",
		"camellia_generic", "blowfish_generic", "lrw", "ctr", "adiantum", "chacha_generic", "nhpoly1305",
		"qemu_fw_cfg",
	}
}

// bootModules are loaded before the guest takes requests.
func bootModules() []string {
	return []string{"virtio_pci", "virtio_console", "virtio_blk", "virtio_scsi", "sd_mod", "9pnet_virtio"}
}

// moduleIndex is modules.dep and modules.builtin: the files that a module file
// needs, and the file of each module name.
type moduleIndex struct {
	needs   map[string][]string // path below the folder → paths, itself not among them
	file    map[string]string   // name with - for _ → path
	builtIn map[string]bool     // name with - for _
}

func moduleName(name string) string { return strings.ReplaceAll(name, "_", "-") }

func readModuleIndex(dir string) (*moduleIndex, error) {
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	x := &moduleIndex{map[string][]string{}, map[string]string{}, map[string]bool{}}
	for line := range strings.Lines(string(dep)) {
		file, deps, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: line without colon: %q", line)
		}
		x.needs[file] = strings.Fields(deps)
		x.file[nameOfModule(file)] = file
	}
	builtIn, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for file := range strings.Lines(string(builtIn)) {
		x.builtIn[nameOfModule(strings.TrimSpace(file))] = true
	}
	return x, nil
}

// nameOfModule is the name of the module in a file, with - for _.
func nameOfModule(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return moduleName(name)
}

// loadable leaves out the modules that the kernel has built in.
func (x *moduleIndex) loadable(names []string) (list []string, err error) {
	for _, n := range names {
		if x.file[moduleName(n)] != "" {
			list = append(list, n)
		} else if !x.builtIn[moduleName(n)] {
			return nil, fmt.Errorf("the kernel has no module %q", n)
		}
	}
	return list, nil
}

// closure returns the files of the named modules and of all that they need. Names
// that the kernel has built in or lacks are left out: the lists above serve
// several kernel versions.
func (x *moduleIndex) closure(names []string) map[string]bool {
	files := map[string]bool{}
	for _, n := range names {
		file, ok := x.file[moduleName(n)]
		if !ok {
			continue
		}
		files[file] = true
		for _, dep := range x.needs[file] { // modules.dep is transitive
			files[dep] = true
		}
	}
	return files
}

// addModules puts modules and the indexes that modprobe needs, cut down to them,
// into the initrd.
func (a *archive) addModules(k *kernel, names []string) error {
	x := k.index
	files := x.closure(names)
	var dep strings.Builder
	dir := "usr/lib/modules/" + k.release
	have := map[string]bool{}
	for file := range files {
		data, err := readModule(filepath.Join(k.modules, file))
		if err != nil {
			return err
		}
		plain := plainModule(file)
		a.file(path.Join(dir, plain), 0o644, data)
		dep.WriteString(plain + ":")
		for _, d := range x.needs[file] {
			dep.WriteString(" " + plainModule(d))
		}
		dep.WriteString("\n")
		have[nameOfModule(file)] = true
	}
	a.file(dir+"/modules.dep", 0o644, []byte(dep.String()))
	aliases, err := aliasesOf(filepath.Join(k.modules, "modules.alias"), have)
	if err != nil {
		return err
	}
	a.file(dir+"/modules.alias", 0o644, aliases)
	return nil
}

// plainModule is the name of a module file without compression.
func plainModule(file string) string {
	return strings.TrimSuffix(strings.TrimSuffix(file, ".xz"), ".zst")
}

func readModule(file string) ([]byte, error) {
	switch filepath.Ext(file) {
	case ".xz":
		return exec.Command("xz", "-dc", file).Output()
	case ".zst":
		return exec.Command("zstd", "-dc", file).Output()
	}
	return os.ReadFile(file)
}

// aliasesOf returns the lines of modules.alias for the modules that are there.
func aliasesOf(file string, have map[string]bool) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" && have[moduleName(f[2])] {
			out.WriteString(line)
		}
	}
	return []byte(out.String()), nil
}
