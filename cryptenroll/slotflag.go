package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"luksmith/luks2"
)

// slotName names a keyslot, by its number or its label.
type slotName struct {
	slot  int    // luks2.AnySlot for none, or as long as only the label is known
	label string // empty for a number
}

// anySlot names none.
func anySlot() slotName { return slotName{slot: luks2.AnySlot} }

// parseSlotName reads a number, a label or label:NAME; -1 is any, as for systemd.
func parseSlotName(text string) (slotName, error) {
	n, err := strconv.Atoi(text)
	switch {
	case text == "-1":
		return anySlot(), nil
	case err != nil && text != "":
		return slotName{luks2.AnySlot, text}, nil
	case err != nil || n < 0 || n >= luks2.MaxKeyslots:
		return anySlot(), usagef("%q is not a keyslot number (0 to %d)", text, luks2.MaxKeyslots-1)
	}
	return slotName{slot: n}, nil
}

// slotFlag is a pflag.Value that names a keyslot.
type slotFlag struct{ name *slotName }

// addSlot defines an option that names a keyslot.
func addSlot(f *pflag.FlagSet, s *slotName, option, help string) {
	*s = anySlot()
	f.Var(&slotFlag{s}, option, help)
}

// Set implements pflag.Value.
func (f *slotFlag) Set(text string) (err error) {
	*f.name, err = parseSlotName(text)
	return err
}

// String is empty for none.
func (f *slotFlag) String() string {
	switch {
	case f.name == nil || f.name.label == "" && f.name.slot == luks2.AnySlot:
		return ""
	case f.name.label != "":
		return f.name.label
	}
	return strconv.Itoa(f.name.slot)
}

// Type is the placeholder in the help text.
func (*slotFlag) Type() string { return "SLOT" }

// resolve finds the number for a label, and refuses a keyslot that is not there.
func (s *slotName) resolve(v *volume) (err error) {
	if s.label == "" {
		return v.checkSlot(s.slot)
	}
	s.slot, err = v.labelled(s.label)
	return err
}

// labelled is the one keyslot with that label.
func (v *volume) labelled(label string) (int, error) {
	found := v.slotsCalled(label)
	switch len(found) {
	case 0:
		return luks2.AnySlot, usagef("%s has no keyslot called %q; it has %s", v.path, label, slotNumbers(v.header.Keyslots))
	case 1:
		return found[0], nil
	}
	return luks2.AnySlot, usagef("%s has several keyslots called %q: name one by its number", v.path, label)
}

// slotsCalled are the keyslots with a label, which may stand behind "label:".
func (v *volume) slotsCalled(label string) (found []int) {
	for _, s := range v.slots {
		if s.Label != "" && (s.Label == label || "label:"+s.Label == label) {
			found = append(found, s.ID)
		}
	}
	return found
}

// slotOf is the keyslot that a word of the command line names.
func (v *volume) slotOf(word string) (int, error) {
	s, err := parseSlotName(word)
	if err != nil {
		return 0, err
	}
	if err := s.resolve(v); err != nil {
		return 0, err
	}
	if s.slot == luks2.AnySlot {
		return 0, fmt.Errorf("%w: %q names no keyslot", luks2.ErrNoKeyslot, word)
	}
	return s.slot, nil
}
