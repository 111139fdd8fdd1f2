package check

import (
	"bufio"
	"bytes"
	"path"
	"strings"

	"luksmith/internal/initramfs/image"
)

// moduleIndex is what an image knows of kernel modules: files in it, and what the kernel
// has built in.
type moduleIndex struct {
	there   map[string]bool // by name with underscores
	folders map[string]bool // below kernel/
	aliases map[string][]string
}

func modulesOf(im *image.Image) *moduleIndex {
	x := &moduleIndex{there: map[string]bool{}, folders: map[string]bool{}, aliases: map[string][]string{}}
	for name := range im.Names() {
		_, inside, ok := strings.Cut(name, "lib/modules/")
		if !ok {
			continue
		}
		switch base := path.Base(name); {
		case strings.Contains(base, ".ko"):
			x.add(inside)
		case base == "modules.builtin":
			x.addBuiltin(im, name)
		case base == "modules.alias":
			x.addAliases(im, name)
		}
	}
	return x
}

// add adds VERSION/kernel/FOLDER/NAME.ko…
func (x *moduleIndex) add(file string) {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	x.there[moduleName(name)] = true
	if _, folder, ok := strings.Cut(path.Dir(file), "kernel/"); ok {
		x.folders[folder] = true
	}
}

func (x *moduleIndex) addBuiltin(im *image.Image, name string) {
	_, f := im.Find(name)
	for line := range strings.Lines(string(f.Data)) {
		x.add(strings.TrimSpace(line))
	}
}

func (x *moduleIndex) addAliases(im *image.Image, name string) {
	_, f := im.Find(name)
	for s := bufio.NewScanner(bytes.NewReader(f.Data)); s.Scan(); {
		if words := strings.Fields(s.Text()); len(words) == 3 && words[0] == "alias" && strings.HasPrefix(words[1], "crypto-") {
			x.aliases[words[1]] = append(x.aliases[words[1]], moduleName(words[2]))
		}
	}
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// has reports whether a module, or one that implements an alias, is there. The kernel's
// list of aliases is of modules only; what is built in goes by its name.
func (x *moduleIndex) has(name string) bool {
	word, alias := strings.CutPrefix(name, "crypto-")
	if !alias {
		return x.there[moduleName(name)]
	}
	for _, module := range append([]string{word, word + "_generic"}, x.aliases[name]...) {
		if x.there[moduleName(module)] {
			return true
		}
	}
	return false
}

// folderHas reports whether a folder below kernel/ has any module.
func (x *moduleIndex) folderHas(folder string) bool {
	for f := range x.folders {
		if f == folder || strings.HasPrefix(f, folder+"/") {
			return true
		}
	}
	return false
}

const moduleRemedy = "name the module to the tool that makes the image"

// kernelModules looks at what the volume and its devices call for.
func (c *checker) kernelModules() {
	names := c.v.Needs.Modules
	if len(names) == 0 {
		names = []string{"dm_crypt"}
	}
	for _, name := range names {
		c.say("module", c.modules.has(name), name, moduleRemedy)
	}
	for _, folder := range c.v.Needs.Folders {
		c.say("module", c.modules.folderHas(folder), folder, moduleRemedy)
	}
}
