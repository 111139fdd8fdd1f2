package check

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/internal/initramfs/image"
	"luksmith/internal/initramfs/kmodindex"
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
// outside: depmod leaves out of the image's what is not in the image, and mkinitcpio
// leaves only those in it that modprobe reads, which do not say in what folder a module
// was that the kernel has built in.
func modulesOf(im *image.Image, system string) *moduleIndex {
	x := &moduleIndex{there: map[string]bool{}, folders: map[string]bool{}, aliases: map[string][]string{}, needs: map[string][]string{}}
	versions := map[string]bool{}
	for name := range im.Names() {
		_, inside, ok := strings.Cut(name, "lib/modules/")
		if !ok {
			continue
		}
		version, _, _ := strings.Cut(inside, "/")
		versions[version] = true
		if strings.Contains(path.Base(name), ".ko") {
			x.add(inside)
			x.loads = true
			continue
		}
		if _, f := im.Find(name); f != nil { // a link may lead nowhere
			x.addList(path.Base(name), f.Data)
		}
	}
	for version := range versions {
		for _, list := range []string{"modules.dep", "modules.builtin"} {
			if data, err := os.ReadFile(filepath.Join(system, version, list)); system != "" && err == nil {
				x.addList(list, data)
			}
		}
	}
	return x
}

// addList adds a list by its name. A damaged one says nothing.
func (x *moduleIndex) addList(name string, data []byte) {
	var entries []kmodindex.Entry
	if strings.HasSuffix(name, ".bin") {
		entries, _ = kmodindex.Read(data)
	}
	switch name {
	case "modules.dep":
		x.listed = x.listed || len(data) > 0
		x.addNeeds(data)
	case "modules.dep.bin":
		x.listed = x.listed || len(data) > 0
		for _, e := range entries {
			x.addNeeds([]byte(e.Value))
		}
	case "modules.builtin":
		for line := range strings.Lines(string(data)) {
			x.add(strings.TrimSpace(line))
		}
	case "modules.builtin.bin":
		for _, e := range entries {
			x.there[moduleName(e.Key)] = true
		}
	case "modules.alias":
		x.addAliases(data)
	case "modules.alias.bin", "modules.builtin.alias.bin":
		for _, e := range entries {
			x.addAlias(e.Key, e.Value)
		}
	}
}

// add adds VERSION/kernel/FOLDER/NAME.ko…
func (x *moduleIndex) add(file string) {
	x.there[fileModule(file)] = true
	if _, folder, ok := strings.Cut(path.Dir(file), "kernel/"); ok {
		x.folders[folder] = true
	}
}

func (x *moduleIndex) addAliases(list []byte) {
	for line := range bytes.Lines(list) {
		if words := strings.Fields(string(line)); len(words) == 3 && words[0] == "alias" {
			x.addAlias(words[1], words[2])
		}
	}
}

// addAlias adds one of those that the kernel asks for ciphers by.
func (x *moduleIndex) addAlias(alias, module string) {
	if alias = moduleName(alias); strings.HasPrefix(alias, "crypto_") {
		x.aliases[alias] = append(x.aliases[alias], moduleName(module))
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
// it needs. The text list of aliases is of modules only; what is built in goes by its
// name then. lacks are the modules that are missed.
func (x *moduleIndex) has(name string) (ok bool, lacks []string) {
	names := []string{name}
	if word, alias := strings.CutPrefix(name, "crypto-"); alias {
		names = append([]string{word, word + "_generic"}, x.aliases[moduleName(name)]...)
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
