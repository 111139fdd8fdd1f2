package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// volume is a LUKS2 volume as it was read, with what its tokens make of its
// keyslots.
type volume struct {
	path string     // as messages name it
	part *partition // nil unless the volume is in an image
	// headerPath is --header=.
	headerPath string
	device     *luks2.Device
	header     *luks2.Header
	slots      []tokens.Slot
}

// openVolume opens the device and reads its header; with write it also refuses
// volumes that must not be written.
func (a *app) openVolume(ctx context.Context, path string, write bool) (*volume, error) {
	v := &volume{path: path, headerPath: a.options.header}
	a.words = v.words()
	o := &luks2.OpenOptions{Header: a.options.header, ReadOnly: !write}
	if err := v.locate(&a.options, o); err != nil {
		return nil, cli.ExplainDenial(err, a.name, a.call)
	}
	a.words = v.words()
	dev, err := luks2.Open(path, o)
	if err != nil {
		return nil, cli.WrongDevice(cli.ExplainDenial(err, a.name, a.call))
	}
	h, err := dev.Header(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, cli.WrongDevice(cli.ExplainDenial(err, a.name, a.call))
	case err != nil:
		return nil, v.hintAtVolume(err)
	}
	if write {
		if err := h.WriteObstacle(); err != nil {
			return nil, fmt.Errorf("%s: %w", v.path, err)
		}
	} else if h.Foreign != "" {
		a.msg.Warning(v.foreignText(h))
	}
	v.device, v.header, v.slots = dev, h, tokens.Slots(a.unlocking, h)
	if write {
		if err := v.refuseHomed(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// locate finds the partition of an image that is meant.
func (v *volume) locate(o *options, open *luks2.OpenOptions) error {
	switch {
	case !o.image.given() && o.image.partition != "":
		return usagef("--partition= is about the image of --image=")
	case !o.image.given():
		return nil
	case o.header != "":
		return usagef("--header= and --image= do not go together")
	}
	part, err := o.image.locate()
	if err != nil {
		return err
	}
	v.path, v.part, open.Window = part.String(), part, part.window()
	return nil
}

// hintAtVolume says how to name the volume behind a partition table, or its header.
func (v *volume) hintAtVolume(err error) error {
	e, holds := errors.AsType[*luks2.HoldsError](err)
	switch {
	case v.part != nil || v.headerPath != "" || errors.Is(err, luks2.ErrLUKS1):
		return err
	case !holds && errors.Is(err, luks2.ErrNotLUKS2):
		return tokens.WithHint(err, "if its header is elsewhere, name that by --header=")
	case !holds || !e.Partitions():
		return err
	}
	if fi, statErr := os.Stat(v.path); statErr == nil && fi.Mode().IsRegular() {
		return tokens.WithHint(err, "name the partition of the image: cryptenroll --image="+v.words())
	}
	return tokens.WithHint(err, "name the partition, not the disk: cryptenroll --list-devices")
}

// place is the volume in JSON: the device or image file, and the number of its
// partition.
func (v *volume) place() placeView {
	if v.part == nil {
		return placeView{Device: v.path}
	}
	return placeView{v.part.file, v.part.Number}
}

type placeView struct {
	Device    string `json:"device"`
	Partition int    `json:"partition,omitempty"` // of an image
}

// words name the volume on a command line.
func (v *volume) words() string {
	switch {
	case v.part != nil:
		return fmt.Sprintf("--image=%s --partition=%d", tokens.ShellWord(v.part.file), v.part.Number)
	case v.headerPath != "":
		return "--header=" + tokens.ShellWord(v.headerPath) + " " + tokens.ShellWord(v.path)
	}
	return tokens.ShellWord(v.path)
}

// foreignText warns of a volume that something was written over.
func (v *volume) foreignText(h *luks2.Header) string {
	return fmt.Sprintf("%s has the signature of %s, and a copy of its header is damaged or old: this was read from the other copy, and nothing is written. %s",
		v.path, h.Foreign, v.hintOf(h.WriteObstacle()))
}

// hintOf is the hint of an error as a sentence; "" if it has none.
func (v *volume) hintOf(err error) string {
	h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !ok || h.Hint() == "" {
		return ""
	}
	return "Hint: " + strings.ReplaceAll(h.Hint(), " DEVICE", " "+v.words())
}

// forTokens is what token types may know of the volume. A token that opens nothing is
// no reason to enrol or not to: its keyslot was killed, or nobody heeds it.
func (v *volume) forTokens() tokens.Volume {
	heard := slices.DeleteFunc(slices.Clone(v.header.Heeded()), func(t luks2.Token) bool { return !v.speaks(t) })
	return tokens.Volume{UUID: v.header.UUID, Device: v.path, Label: v.header.Label, Tokens: heard, Words: v.words()}
}

// speaks reports whether a token speaks for a keyslot of the data, as one that names
// several does not, nor one of several that name the same.
func (v *volume) speaks(t luks2.Token) bool {
	if len(t.Keyslots) != 1 {
		return false
	}
	s, ok := v.slot(t.Keyslots[0])
	return ok && s.Kind != tokens.KindConflict && !s.Unbound
}

// checkSlot refuses a keyslot that is not there; luks2.AnySlot always is.
func (v *volume) checkSlot(slot int) error {
	if _, ok := v.header.Keyslot(slot); slot == luks2.AnySlot || ok {
		return nil
	}
	return noKeyslot(v.path, slot, v.header.Keyslots)
}

// slot is the keyslot of that number.
func (v *volume) slot(id int) (tokens.Slot, bool) {
	i := slices.IndexFunc(v.slots, func(s tokens.Slot) bool { return s.ID == id })
	if i < 0 {
		return tokens.Slot{}, false
	}
	return v.slots[i], true
}

// tokensOf are all tokens of a type on usable slots.
func (v *volume) tokensOf(h tokens.Handler) (list []luks2.Token) {
	for _, s := range v.slots {
		if s.Kind == h.Name() && s.Usable() {
			list = append(list, s.Tokens...)
		}
	}
	return list
}

// slotsText joins several for a question.
func slotsText(slots []tokens.Slot) string {
	texts := make([]string, len(slots))
	for i, s := range slots {
		texts[i] = s.String()
	}
	return strings.Join(texts, ", ")
}
