package check

import (
	"bytes"
	"debug/elf"
	"path"
	"slices"
	"strings"

	"luksmith/crypttab"
	"luksmith/tokens"
)

// opened looks for a library that a helper opens, or for the one that crypttab names in its
// place.
func (c *checker) opened(l tokens.Library) {
	for _, word := range crypttab.SplitOptions(c.options()) {
		if name, value, _ := strings.Cut(word, "="); name == l.Option && path.IsAbs(value) {
			c.say("library", c.im.Has(value), value, "name it and what it needs to the tool that makes the image")
			return
		}
	}
	there := false
	for file := range c.im.Names() {
		there = there || path.Base(file) == l.Name
	}
	c.say("library", there, l.Name+", which a helper opens", "name it, the modules of its configuration and what they need to the tool that makes the image")
}

// options are those of the volume's line.
func (c *checker) options() string {
	if c.entry == nil {
		return ""
	}
	return c.entry.Options
}

// missingLibraries follows what a program and its libraries are linked with.
func (c *checker) missingLibraries(program string) (missing []string) {
	libraries := map[string]string{} // by name
	for name := range c.im.Names() {
		if base := path.Base(name); strings.Contains(base, ".so") {
			libraries[base] = name
		}
	}
	seen, todo := map[string]bool{}, c.linked(program)
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		file, f := c.im.Find(libraries[name])
		if libraries[name] == "" || f == nil || len(f.Data) == 0 {
			missing = append(missing, name)
			continue
		}
		todo = append(todo, c.linked(file)...)
	}
	slices.Sort(missing)
	return missing
}

// linked are the libraries that a file names, its interpreter among them.
func (c *checker) linked(file string) []string {
	_, f := c.im.Find(file)
	e, err := elf.NewFile(bytes.NewReader(f.Data))
	if err != nil {
		return nil
	}
	names, err := e.ImportedLibraries()
	if err != nil {
		return nil
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		text := make([]byte, p.Filesz)
		if _, err := p.ReadAt(text, 0); err == nil {
			names = append(names, path.Base(strings.TrimRight(string(text), "\x00")))
		}
	}
	return names
}
