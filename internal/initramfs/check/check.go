// Package check says whether an initramfs can open a volume with luksmith, and what it
// lacks.
package check

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"luksmith/crypttab"
	"luksmith/internal/initramfs"
	"luksmith/internal/initramfs/image"
)

// Volume is what has to be opened. The zero value stands for one that nothing is known
// about but that it is encrypted.
type Volume struct {
	Name  string   // of the mapping; empty: whatever crypttab says
	Names []string // how crypttab may name the device: UUID=…, paths
	Needs initramfs.Needs
	// Root says that the partition table marks it as the root file system of this
	// architecture, and that it is the newest.
	Root bool
	// KernelLine is the kernel command line of the boot that runs: an image does not show
	// that of the next one.
	KernelLine string
	// Modules is a folder of this system with one for each kernel, whose lists say what a
	// module needs; empty: only those of the image are believed.
	Modules string
	// EFI says that the firmware's variables tell which disk was booted from.
	EFI bool
}

// Finding is the verdict about one part of the image.
type Finding = initramfs.Finding

const lib = "usr/lib/luksmith/"

// checker collects findings.
type checker struct {
	im       *image.Image
	v        *Volume
	tool     tool
	modules  *moduleIndex
	findings []Finding
	entry    *crypttab.Entry // the volume's line; nil without one
}

// Image looks at all parts that the volume calls for.
func Image(im *image.Image, v *Volume) []Finding {
	c := &checker{im: im, v: v, tool: toolOf(im), modules: modulesOf(im, v.Modules)}
	c.program(lib+"cryptsetup-unit", "program", "install the package luksmith, make the file /etc/luksmith/boot")
	c.starter()
	c.bootSwitch()
	c.crypttab()
	c.kernelModules()
	for _, h := range v.Needs.Helpers {
		c.program(lib+h, "helper", "install the package "+h)
	}
	for _, library := range v.Needs.Opens {
		c.opened(library)
	}
	for _, f := range v.Needs.Files {
		c.say("key file", c.im.Has(f), f, "name the file to the tool that makes the image")
	}
	return c.findings
}

// OK reports whether nothing is missing.
func OK(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return !f.OK })
}

// say adds a verdict; the remedy ends with making the image again.
func (c *checker) say(part string, ok bool, what, remedy string) {
	f := Finding{Part: part, OK: ok, What: what}
	if !ok {
		f.Remedy = remedy + ", then: " + c.tool.rebuild
	}
	c.findings = append(c.findings, f)
}

// program looks at a program and the libraries that it is linked with.
func (c *checker) program(name, part, remedy string) {
	real, f := c.im.Find(name)
	switch {
	case f == nil || !f.Mode.IsRegular():
		c.say(part, false, "/"+name+" is missing", remedy)
		return
	case f.Mode&0o111 == 0:
		c.say(part, false, "/"+name+" cannot be executed", remedy)
		return
	case !bytes.HasPrefix(f.Data, []byte("\x7fELF")):
		c.say(part, false, "/"+name+" is not a program", remedy)
		return
	}
	c.say(part, true, "/"+name, "")
	if missing := c.missingLibraries(real); len(missing) > 0 {
		c.say("library", false, "/"+name+" needs "+strings.Join(missing, ", "), "reinstall the package that has it")
	}
}

// starter looks at what calls the program while the system boots.
func (c *checker) starter() {
	for _, name := range c.tool.starters {
		_, f := c.im.Find(name)
		c.say("hook", f != nil && f.Mode.IsRegular() && f.Mode&0o111 != 0, "/"+name, "reinstall the package luksmith")
	}
	for _, tool := range c.tool.calls() {
		c.say("hook", c.hasCommand(tool), tool+", which /"+lib+"first calls", "name it to the tool that makes the image")
	}
	if len(c.tool.starters) == 0 {
		c.say("hook", false, "no tool is known that makes images like this one", "see docs/initrd.md")
	}
}

// hasCommand reports whether a shell finds a command.
func (c *checker) hasCommand(name string) bool {
	return slices.ContainsFunc([]string{"usr/bin/", "usr/sbin/", "bin/", "sbin/"}, func(dir string) bool { return c.im.Has(dir + name) })
}

// bootSwitch looks at the file that switches the hooks on.
func (c *checker) bootSwitch() {
	_, f := c.im.Find("etc/luksmith/boot")
	if f == nil {
		c.say("switch", false, "/etc/luksmith/boot is missing", "make that file (`all`, or names of volumes)")
		return
	}
	words := switchWords(string(f.Data))
	on := slices.Contains(words, "all") || c.v.Name == "" && len(words) > 0 || slices.Contains(words, c.v.Name)
	c.say("switch", on, "/etc/luksmith/boot names "+strings.Join(words, ", "), fmt.Sprintf("add %q to that file", c.v.Name))
}

func switchWords(text string) (words []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for word := range strings.FieldsSeq(line) {
			words = append(words, crypttab.Unescape(word))
		}
	}
	return words
}

// crypttab looks for the volume's line. With dracut and mkinitcpio words on the kernel
// command line can stand for it, which an image does not show.
func (c *checker) crypttab() {
	lines := 0
	for _, name := range c.tool.crypttabs {
		_, f := c.im.Find(name)
		if f == nil {
			continue
		}
		file, err := crypttab.Parse(bytes.NewReader(f.Data), "/"+name)
		if err != nil {
			c.say("crypttab", false, err.Error(), "mend /etc/crypttab")
			return
		}
		lines += len(file.Entries)
		if i := slices.IndexFunc(file.Entries, c.isVolume); i >= 0 {
			c.say("crypttab", true, fmt.Sprintf("/%s has a line for %s", name, file.Entries[i].Name), "")
			c.entry = &file.Entries[i]
			c.keyFile(c.entry)
			return
		}
	}
	if line, whose := c.kernelLine(); c.tool.named != nil && c.tool.named(c, line) {
		c.say("crypttab", true, "no line: the kernel command line of "+whose+" names the volume", "")
		return
	}
	if c.v.Root && c.tool.discovers && lines == 0 { // with lines, only these count
		c.discovery()
		return
	}
	where := "/" + strings.Join(c.tool.crypttabs, ", /")
	if len(c.tool.crypttabs) == 0 {
		_, whose := c.kernelLine()
		where = "the kernel command line of " + whose
	}
	c.say("crypttab", false, "no line for the volume in "+where, c.tool.remedy())
}

// kernelLine is that of a unified kernel image, or else that of the boot that runs.
func (c *checker) kernelLine() (line, whose string) {
	if c.im.KernelLine != "" {
		return c.im.KernelLine, "the image"
	}
	return c.v.KernelLine, "this boot"
}

// byLuksWords finds the volume in words that begin with rd.luks.
func (c *checker) byLuksWords(line string) bool {
	entries, _ := crypttab.ParseKernelLine(line, true).Select(&crypttab.File{})
	return slices.ContainsFunc(entries, c.isVolume)
}

// byCryptdevice finds the volume in cryptdevice=DEVICE:NAME[:OPTIONS] of mkinitcpio's hook
// encrypt, which reads no crypttab.
func (c *checker) byCryptdevice(line string) bool {
	for word := range strings.FieldsSeq(line) {
		value, ok := strings.CutPrefix(word, "cryptdevice=")
		device, rest, named := strings.Cut(value, ":")
		name, _, _ := strings.Cut(rest, ":")
		if !ok || !named || name == "" {
			continue
		}
		file, err := crypttab.Parse(strings.NewReader(name+" "+device+"\n"), "cryptdevice=")
		return err == nil && slices.ContainsFunc(file.Entries, c.isVolume)
	}
	return false
}

// discovery looks at what finds the volume where no line names it.
func (c *checker) discovery() {
	c.say("crypttab", true, "no line: the partition table marks the volume, which is attached with root=/dev/mapper/root on the kernel command line", "")
	if c.v.EFI {
		c.module("efivarfs")
	}
	if len(c.tool.finders) > 0 {
		c.say("hook", slices.ContainsFunc(c.tool.finders, c.im.Has), "/"+c.tool.finders[0], "reinstall the package luksmith")
	}
}

func (c *checker) isVolume(e crypttab.Entry) bool {
	if c.v.Name == "" && len(c.v.Names) == 0 {
		return true
	}
	return e.Name == c.v.Name || slices.ContainsFunc(c.v.Names, func(n string) bool { return strings.EqualFold(n, e.Source.String()) })
}

// keyFile looks for the key file of the volume's line, unless it comes from elsewhere.
func (c *checker) keyFile(e *crypttab.Entry) {
	p := e.Key.Path
	if e.Key.Device != nil || p == "" || strings.HasPrefix(p, "/dev/") || strings.HasPrefix(p, "/run/") || slices.Contains(c.v.Needs.Files, p) || !path.IsAbs(p) {
		return
	}
	c.say("key file", c.im.Has(p), p, "name the file to the tool that makes the image")
}
