package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/crypttab"
)

// generatorName is the name under which systemd calls the program while it puts its
// units together: see systemd.generator(7).
const generatorName = "luksmith-generator"

// generatorDropIn is the name of the file that is written beside systemd's unit.
const generatorDropIn = "50-luksmith.conf"

// generator carries out `luksmith-generator NORMAL EARLY LATE`. For each volume that is
// switched on it has systemd start a unit of ours before its own one. Whatever happens
// to that unit, systemd's follows and asks as always; a volume that is mapped by then
// is "already active" to it.
//
// The unit is one of its own, and not a line in systemd's, because only a unit has a
// time limit: a program that hangs must not keep the question away. initrd/first sees to
// that; the limit of the unit is for a shell that hangs.
func (a *app) generator(args []string) error {
	if len(args) == 0 || len(args) > 3 {
		return &usageError{text: "want one to three folders", hint: "systemd calls this program: see systemd.generator(7)"}
	}
	on, _, err := a.readBootSwitch()
	if err != nil || !on.all && len(on.names) == 0 {
		return err
	}
	entries, err := a.entries(a.crypttabPath(""), inInitrd())
	if err != nil {
		return err
	}
	stock := a.hasSystemdCryptsetup()
	for _, e := range entries {
		j, _, err := newJob(e, a.grammar()) // what it warns about is said when the volume is attached
		if err != nil || !on.on(e.Name) {
			continue // not one of ours: systemd's unit stays as it is
		}
		if err := writeUnits(args[0], j, stock); err != nil {
			return err
		}
	}
	return nil
}

// hasSystemdCryptsetup reports whether systemd makes units for crypttab here. Debian 13
// has that in a package of its own.
func (a *app) hasSystemdCryptsetup() bool {
	for _, dir := range []string{"/usr/lib", "/lib", "/usr/local/lib"} {
		if _, err := os.Stat(filepath.Join(a.root, dir, "systemd/system-generators/systemd-cryptsetup-generator")); err == nil {
			return true
		}
	}
	return false
}

// writeUnits writes what one volume needs.
func writeUnits(dir string, j *job, stock bool) error {
	escaped := escapeUnit(j.entry.Name)
	theirs, ours := "systemd-cryptsetup@"+escaped+".service", "luksmith-attach@"+escaped+".service"
	switch {
	case !stock:
		if err := writeUnit(filepath.Join(dir, theirs), j.wholeUnit()); err != nil {
			return err
		}
		return j.want(dir, theirs)
	case j.mayOnlyBeOurs():
		return writeUnit(filepath.Join(dir, theirs+".d", generatorDropIn), generated+"[Service]\nExecStart=\nExecStart="+j.unitCommand("cryptsetup-unit", "attach", "--")+"\n")
	}
	if err := writeUnit(filepath.Join(dir, ours), j.firstUnit(inInitrd())); err != nil {
		return err
	}
	return writeUnit(filepath.Join(dir, theirs+".d", generatorDropIn), generated+"[Unit]\nWants="+ours+"\nAfter="+ours+"\n")
}

// mayOnlyBeOurs reports whether the volume has an option that forbids something which a
// second program would allow.
func (j *job) mayOnlyBeOurs() bool {
	o := j.options
	return o.FixateVolumeKey != "" || o.TokenOnly || o.Latch || o.MeasurePCR >= 0
}

const generated = "# Made by luksmith-generator from crypttab and " + bootSwitchPath + ".\n"

// firstUnit is the unit that goes before systemd's.
func (j *job) firstUnit(initrd bool) string {
	words := []string{"32", "cryptsetup-unit", "attach-all", "--only-automatic", "--limit=25s", "--"}
	if initrd { // where rd.luks words may be all that names the volume
		words = slices.Insert(words, 3, "--initrd")
	}
	return generated + fmt.Sprintf(`[Unit]
Description=Security devices and key files for %s
Documentation=man:cryptsetup-unit(8)
DefaultDependencies=no
IgnoreOnIsolate=yes
After=cryptsetup-pre.target systemd-udevd-kernel.socket systemd-udevd.service systemd-journald.socket tpm2.target
%s
[Service]
Type=oneshot
TimeoutStartSec=310s
TimeoutStopSec=3s
KeyringMode=shared
OOMScoreAdjust=500
ExecStart=-%s
`, specifiers(j.entry.Name), j.unitDevice(), j.unitCommand("first", words...))
}

// wholeUnit takes the place of systemd's where that makes none.
func (j *job) wholeUnit() string {
	escaped := escapeUnit(j.entry.Name)
	return generated + fmt.Sprintf(`[Unit]
Description=Cryptography setup for %s
Documentation=man:cryptsetup-unit(8)
DefaultDependencies=no
IgnoreOnIsolate=yes
After=cryptsetup-pre.target systemd-udevd-kernel.socket systemd-udevd.service systemd-journald.socket tpm2.target
Before=blockdev@dev-mapper-%s.target umount.target
Wants=blockdev@dev-mapper-%s.target
Conflicts=umount.target
%s
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutSec=infinity
KeyringMode=shared
OOMScoreAdjust=500
ExecStart=%s
ExecStop=%s
`, specifiers(j.entry.Name), escaped, escaped, j.unitDevice(), j.unitCommand("cryptsetup-unit", "attach", "--"), j.unitCommand("cryptsetup-unit", "detach", "--"))
}

// want has the unit started at boot, by the target for its kind, and with the device of
// the mapping.
func (j *job) want(dir, unit string) error {
	target := "cryptsetup.target"
	if j.options.NetDev {
		target = "remote-cryptsetup.target"
	}
	kind := ".requires"
	if j.options.NoFail {
		kind = ".wants"
	}
	places := []string{"dev-mapper-" + escapeUnit(j.entry.Name) + ".device.requires"}
	if !j.options.NoAuto {
		places = append(places, target+kind)
	}
	for _, place := range places {
		link := filepath.Join(dir, place, unit)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return fmt.Errorf("writing %s: %w", link, err)
		}
		if err := os.Symlink("../"+unit, link); err != nil {
			return fmt.Errorf("writing %s: %w", link, err)
		}
	}
	return nil
}

// unitDevice orders a unit behind the volume's device or image file.
func (j *job) unitDevice() string {
	var text strings.Builder
	link := j.entry.Source.UdevLinks()[0]
	if !canAppear(j.entry.Source) {
		fmt.Fprintf(&text, "RequiresMountsFor=%s\n", unitWord(link))
	} else {
		device := escapeUnitPath(link) + ".device"
		fmt.Fprintf(&text, "BindsTo=%s\nAfter=%s\n", device, device)
	}
	for _, l := range []crypttab.Location{j.entry.Key, j.header} {
		if l.Device == nil && l.Path != "" && !strings.HasPrefix(l.Path, "/dev/") && !strings.HasPrefix(l.Path, "/run/") {
			fmt.Fprintf(&text, "RequiresMountsFor=%s\n", unitWord(l.Path))
		}
	}
	return text.String()
}

// unitCommand is a command line of ours with the volume's name at the end.
func (j *job) unitCommand(program string, words ...string) string {
	name := strings.ReplaceAll(j.entry.Name, "$", "$$")
	return "/usr/lib/luksmith/" + program + " " + strings.Join(words, " ") + " " + unitWord(name)
}

// unitWord writes a word for a unit file, in quotes where it needs them.
func unitWord(s string) string {
	s = specifiers(s)
	if s != "" && !strings.ContainsAny(s, " \t\n\"'\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// specifiers keeps systemd from reading a % as one.
func specifiers(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// escapeUnit spells a name as the instance of a unit (systemd src/basic/unit-name.c,
// unit_name_escape).
func escapeUnit(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i == 0, !isUnitByte(c):
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isUnitByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == ':' || c == '_' || c == '.'
}

// escapeUnitPath spells a path as the name of a unit, without the ending.
func escapeUnitPath(path string) string {
	path = strings.Trim(filepath.Clean(path), "/")
	if path == "" || path == "." {
		return "-"
	}
	return escapeUnit(path)
}

// writeUnit writes one file of a generator.
func writeUnit(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
