package main

import (
	"fmt"
	"os"

	"luksmith/internal/cli"
	"luksmith/tokens"
)

// refuseCrypttab finds out before anything is enrolled whether --write-crypttab= could
// do its work: the file can be read, and at most one line is about the volume.
func (r *reporter) refuseCrypttab(p *plan) error {
	file := r.crypttab
	switch {
	case file == "" || p.enroller == nil:
		return nil
	case p.part != nil && file == systemCrypttab:
		return usagef("--write-crypttab is about this machine, and a disk image is not part of it: name the crypttab of the image's system with --write-crypttab=FILE")
	}
	_, err := r.crypttabChange(p, &tokens.Enrollment{}).Preview(file)
	return err
}

// writeCrypttab gives the volume's line what unlocks it, once that is enrolled. If it
// fails, the keyslot is there all the same.
func (r *reporter) writeCrypttab(out *outcome) (err error) {
	if r.crypttab == "" || out.enrolled == nil {
		return nil
	}
	out.crypttab, err = r.crypttabChange(out.plan, out.enrolled.result).Write(r.crypttab)
	if err != nil {
		return tokens.WithHint(fmt.Errorf("the keyslot is enrolled, but not in crypttab: %w", err), "once that is mended: "+r.setCommand(out.plan, out.enrolled.result))
	}
	return nil
}

// tellCrypttab says what --write-crypttab= did.
func (r *reporter) tellCrypttab(out *outcome) {
	c, w := out.crypttab, r.msg.Err
	switch {
	case c == nil:
		return
	case c.Old == c.New:
		w.Linef("%s has it already:", c.File)
		w.Pasted("  " + c.New)
		return
	}
	w.Linef("Written to %s:", c.File)
	w.Pasted("  " + c.New)
	if c.Copy != "" {
		w.Linef("The file as it was is in %s.", c.Copy)
	}
	r.suggestInitrd(out.plan)
}

// suggestCrypttab prints the line for /etc/crypttab, the command that writes it, and
// what rebuilds the initrd.
func (r *reporter) suggestCrypttab(p *plan, e *tokens.Enrollment) {
	w := r.msg.Err
	line, isNew := r.crypttabLine(p, e)
	if isNew {
		w.Linef("In /etc/crypttab this line unlocks it at boot:")
	} else {
		w.Linef("Its line in /etc/crypttab, so that it is unlocked at boot:")
	}
	w.Pasted("  " + line)
	// crypttab set looks for devices of this machine.
	if info, err := os.Stat(p.path); err == nil && info.Mode()&os.ModeDevice != 0 && r.header == "" {
		w.Linef("which this command writes: %s", r.setCommand(p, e))
	}
	r.suggestInitrd(p)
}

// setCommand is the command that changes the volume's line.
func (r *reporter) setCommand(p *plan, e *tokens.Enrollment) string {
	words := []string{"cryptsetup-unit", "crypttab", "set"}
	if r.crypttab != "" && r.crypttab != systemCrypttab {
		words = append(words, "--file="+r.crypttab)
	}
	if e.KeyFile != "" {
		words = append(words, "--key-file="+e.KeyFile)
	}
	return cli.ShellWords(append(append(words, p.path), e.Crypttab...)...)
}

// suggestInitrd names what puts the changed crypttab into the initrd.
func (r *reporter) suggestInitrd(p *plan) {
	if command := initrdCommand(r.root); command != "" && p.part == nil {
		r.msg.Err.Linef("and then, if the volume is needed to boot: %s", command)
	}
}
