package main

import (
	"fmt"
	"strings"

	"luksmith/internal/cli"
)

// verb is one command.
type verb struct {
	name    string // may have two words: "crypttab lint"
	args    string // for the usage line
	summary string // one line, no full stop
	about   string // further lines for --help of the command; may be empty
	min     int    // number of arguments
	max     int
	reads   bool // and prints, nothing else: signals may end it anywhere
	// make returns the options bound to a new value of the command's own, and the
	// function that runs it.
	make func() (flags []flag, run func(*app, []string) error)
}

// verbs are the commands. attach and detach are those of systemd-cryptsetup.
func verbs() []verb {
	return []verb{
		{name: "attach", args: "VOLUME [DEVICE [KEY-FILE] [OPTIONS]]", min: 1, max: 4, make: attachVerb,
			summary: "Unlock a volume and map it to /dev/mapper/VOLUME",
			about: `With VOLUME alone, crypttab or the kernel command line say the rest. Otherwise
the arguments are the fields of a line of crypttab; "-", "none" and "" stand for
nothing. DEVICE may be a path, or UUID=, LABEL=, PARTUUID= or PARTLABEL= and a value.
`},
		{name: "attach-all", args: "[VOLUME...]", max: 1024, make: attachAllVerb,
			summary: "Attach what crypttab and the kernel command line name",
			about: `All volumes but those with noauto, side by side. A passphrase that opens one is
tried on the others. Volumes with nofail do not change the exit status. With names
only these, noauto or not.

With --only-automatic nobody is asked for a passphrase, only for PINs and touches, and
the exit status is 0 also if volumes stay closed: another program asks next.
`},
		{name: "detach", args: "VOLUME", min: 1, max: 1, make: detachVerb,
			summary: "Remove a mapping",
			about: `One that is in use goes when its last user does. One that is not there is fine.
`},
		{name: "status", args: "[VOLUME]", max: 1, reads: true, make: statusVerb,
			summary: "Show a mapping, and how the volume was unlocked",
			about: `Without VOLUME a line for each one that is mapped or stands in crypttab. The exit
status is 4 if VOLUME is not mapped.
`},
		{name: "key", args: "[VOLUME [DEVICE [KEY-FILE] [OPTIONS]]]", max: 4, make: keyVerb,
			summary: "Print what opens a volume",
			about: `For programs that want a key: what a security device or key file gives, or a person
types, goes to standard output as it is, without a line end. Nothing is mapped.
`},
		{name: "initrd needs", reads: true, make: needsVerb,
			summary: "Print what an initrd must have for the volumes of crypttab",
			about: `One word and its value on each line: module, modules (a folder of them), helper, file,
and missing for what could not be found out.
`},
		{name: "initrd check", args: "IMAGE", min: 1, max: 1, reads: true, make: checkVerb,
			summary: "Say whether an initrd can open a volume",
			about: `Without --volume= what every volume needs is looked for. Each part that is missing
stands with what adds it. The exit status is 1 then.
`},
		{name: "crypttab lint", args: "[FILE]", max: 1, reads: true, make: lintVerb,
			summary: "Look for mistakes in crypttab",
			about: `Options, combinations, key files, permissions, and, for devices that are there,
tokens and keyslots of the headers. Without FILE also crypttab.initramfs, if there
is one. The exit status is 1 if there are errors.
`},
		{name: "crypttab set", args: "DEVICE [OPTION...]", min: 1, max: 64, make: setVerb,
			summary: "Give a volume options in crypttab",
			about: `The line is found by the UUID in the header, whatever name it has for the device;
a volume without a line gets one. The rest of the file stays as it is; its old text
is kept in FILE.old.
`},
	}
}

// line is the command with its arguments.
func (v *verb) line(name string) string {
	words := name + " " + v.name
	if flags, _ := v.make(); len(flags) > 0 {
		words += " [OPTIONS]"
	}
	return strings.TrimSpace(words + " " + v.args)
}

// commandNames is a hint for those who have to choose.
func commandNames(name string) string {
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	return "the commands are " + strings.Join(names, ", ") + "; see " + name + " --help"
}

// usage is what --help prints.
func usage(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Attach and detach encrypted volumes while the system starts\n\n  %s COMMAND [OPTIONS]\n\nCommands:\n", name)
	for _, v := range verbs() {
		fmt.Fprintf(&b, "  %s\n      %s\n", v.line(name), v.summary)
	}
	fmt.Fprintf(&b, "\nGeneral:\n  -h, --help    print this text; after a command, what it does\n      --version print the version\n%s", seeAlso)
	return b.String()
}

const seeAlso = "\nSee cryptsetup-unit(8) and luksmith-crypttab(5).\n"

// helpWidth is the width of every terminal.
const helpWidth = 80

// usage is what --help prints after the command.
func (v *verb) usage(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n  %s\n", v.summary, v.line(name))
	for paragraph := range strings.SplitSeq(strings.TrimSpace(v.about), "\n\n") {
		b.WriteString("\n" + strings.Join(cli.Wrap(paragraph, helpWidth), "\n") + "\n")
	}
	if flags, _ := v.make(); len(flags) > 0 {
		b.WriteString("\nOptions:\n")
		for _, f := range flags {
			word := f.spelling()
			for _, line := range cli.Wrap(f.help, helpWidth-28) {
				fmt.Fprintf(&b, "  %-24s  %s\n", word, line)
				word = ""
			}
		}
	}
	b.WriteString(seeAlso)
	return b.String()
}

func (f flag) spelling() string {
	if f.arg == "" {
		return "--" + f.name
	}
	return "--" + f.name + "=" + f.arg
}
