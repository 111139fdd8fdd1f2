package check

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/internal/initramfs/image"
)

// moduleIndex is what an image knows of kernel modules: files in it, and what the kernel
// has built in.
type moduleIndex struct {
	there   map[string]bool // by name with underscores
	folders map[string]bool // below kernel/
	aliases map[string][]string
	needs   map[string][]string // what each one is loaded after
	loads   bool                // some are files
	listed  bool                // modprobe knows where they are
}

// modulesOf reads the lists of an image and, in system, those that the same kernels have
// outside: depmod leaves out of the image's what is not in the image.
func modulesOf(im *image.Image, system string) *moduleIndex {
	x := &moduleIndex{there: map[string]bool{}, folders: map[string]bool{}, aliases: map[string][]string{}, needs: map[string][]string{}}
	versions := map[string]bool{}
	for name := range im.Names() {
		_, inside, ok := strings.Cut(name, "lib/modules/")
		if !ok {
			continue
		}
		switch base := path.Base(name); {
		case strings.Contains(base, ".ko"):
			x.add(inside)
			version, _, _ := strings.Cut(inside, "/")
			versions[version], x.loads = true, true
		case base == "modules.dep", base == "modules.dep.bin":
			_, f := im.Find(name)
			x.listed = x.listed || len(f.Data) > 0
			if base == "modules.dep" {
				x.addNeeds(f.Data)
			}
		case base == "modules.builtin":
			x.addBuiltin(im, name)
		case base == "modules.alias":
			x.addAliases(im, name)
		}
	}
	for version := range versions {
		if list, err := os.ReadFile(filepath.Join(system, version, "modules.dep")); system != "" && err == nil {
			x.addNeeds(list)
		}
	}
	return x
}

// add adds VERSION/kernel/FOLDER/NAME.ko…
func (x *moduleIndex) add(file string) {
	x.there[fileModule(file)] = true
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

// addNeeds adds lines of modules.dep.
func (x *moduleIndex) addNeeds(list []byte) {
	for line := range bytes.Lines(list) {
		file, rest, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		for word := range bytes.FieldsSeq(rest) {
			name := fileModule(string(file))
			x.needs[name] = append(x.needs[name], fileModule(string(word)))
		}
	}
}

// fileModule is the name of the module in a file.
func fileModule(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return moduleName(name)
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// has reports whether a module, or one that implements an alias, is there with those that
// it needs. The kernel's list of aliases is of modules only; what is built in goes by its
// name. lacks are the modules that are missed.
func (x *moduleIndex) has(name string) (ok bool, lacks []string) {
	names := []string{name}
	if word, alias := strings.CutPrefix(name, "crypto-"); alias {
		names = append([]string{word, word + "_generic"}, x.aliases[name]...)
	}
	for _, module := range names {
		module = moduleName(module)
		if !x.there[module] {
			continue
		}
		missing := slices.DeleteFunc(slices.Clone(x.needs[module]), func(n string) bool { return x.there[n] })
		if len(missing) == 0 {
			return true, nil
		}
		lacks = missing
	}
	slices.Sort(lacks)
	return false, slices.Compact(lacks)
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
		c.module(name)
	}
	for _, folder := range c.v.Needs.Folders {
		c.say("module", c.modules.folderHas(folder), folder, moduleRemedy)
	}
	if !c.modules.listed && c.modules.loads {
		c.say("module", false, "modules.dep, without which modprobe finds none", "run depmod for the image")
	}
}

// module looks for one module.
func (c *checker) module(name string) {
	ok, lacks := c.modules.has(name)
	if len(lacks) > 0 {
		name += ", which needs " + strings.Join(lacks, ", ")
	}
	c.say("module", ok, name, moduleRemedy)
}
