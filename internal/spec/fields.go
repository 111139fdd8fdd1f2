package spec

import (
	"slices"

	"luksmith/tokens"
)

// shape is that of a whole file.
func (s *Spec) shape(types tokens.Set) shape {
	return object{place: &s.Place, fields: []field{
		{name: "$schema", about: "the JSON Schema of this file, for editors", value: plain(new(string))},
		{name: "version", about: "of this format", required: true, value: version{}},
		{name: "devices", about: "the volumes, unless the command line names some", value: list{func() shape {
			s.Devices = append(s.Devices, Text{})
			return text(&s.Devices[len(s.Devices)-1])
		}}},
		{name: "compat", about: "the oldest systemd that can read new tokens: auto, or 248 to 262", value: values{func(at Place, value string) error {
			s.Compat = Text{at, value}
			return nil
		}}},
		{name: "require", about: "what the machine must have", value: requireShape(&s.Require, types)},
		{name: "unlock", about: "ways to open the volume, tried in this order; by default what asks nobody", value: list{func() shape {
			s.Unlock = append(s.Unlock, Way{})
			return unlockShape(&s.Unlock[len(s.Unlock)-1], types)
		}}},
		{name: "keyslots", about: "ways in that the volume shall have; the label is the identity of each", value: list{func() shape {
			s.Keyslots = append(s.Keyslots, Keyslot{Rebind: WhenClosed})
			return &keyslotShape{&s.Keyslots[len(s.Keyslots)-1], types}
		}}},
		{name: "absent", about: "keyslots that are wiped, when all of keyslots are there and one has opened the volume", value: list{func() shape {
			s.Absent = append(s.Absent, Absent{})
			return absentShape(&s.Absent[len(s.Absent)-1], types)
		}}},
		{name: "unlisted", about: "what becomes of keyslots that are named nowhere else", value: word(&s.Unlisted, Keep, Refuse, Wipe)},
		{name: "crypttab", about: "what the line of each volume in crypttab shall have", value: crypttabShape(&s.Crypttab)},
		{name: "initrd", about: "makes the initrd anew after a change: auto, or a program and its arguments", value: either{Auto, func() { s.Initrd = []string{Auto} }, command(&s.Initrd)}},
	}}
}

// requireShape is that of what the machine must have.
func requireShape(dst **Require, types tokens.Set) shape {
	var words []string
	for _, h := range types {
		if _, lists := h.(tokens.DeviceLister); lists {
			words = append(words, h.Name())
		}
	}
	words = append(words, SecureBoot)
	r := &Require{}
	otherwise := ""
	return after{object{place: &r.Place, fields: []field{
		{name: "needs", required: true, about: "security devices that are there, and Secure Boot that is on", value: list{func() shape {
			return scalar{words: words, set: func(_ Place, value string) error { r.Needs = append(r.Needs, value); return nil }}
		}}},
		{name: "else", about: "what is done without them: fail, or skip what requires them", value: word(&otherwise, "fail", "skip")},
	}}, func(node) error {
		r.Skip = otherwise == "skip"
		*dst = r
		return nil
	}}
}

// after reads a shape and then does something with what was read.
type after struct {
	shape
	then func(n node) error
}

func (a after) read(n node) error {
	if err := a.shape.read(n); err != nil {
		return err
	}
	return a.then(n)
}

// waysShape takes one way: a word, or a word with a value.
type waysShape struct {
	dst   *Way
	words []string // that need no value
	with  []field  // that have one
}

func (w waysShape) read(n node) error {
	w.dst.Place = n.Place
	if o := (object{fields: w.with, only: true}); n.Kind != scalarKind {
		if err := o.read(n); err != nil {
			return err
		}
		w.dst.By = hyphens(n.Content[0].Value)
		return nil
	}
	if slices.Contains(object{fields: w.with}.names(), hyphens(n.Value)) && !slices.Contains(w.words, hyphens(n.Value)) {
		return n.Errorf("%s needs a value: {%s: …}", n.Value, n.Value)
	}
	return scalar{words: w.words, set: func(_ Place, value string) error { w.dst.By = value; return nil }}.read(n)
}

func (w waysShape) schema() map[string]any {
	var either []any
	if len(w.words) > 0 {
		either = append(either, map[string]any{"enum": w.words})
	}
	return map[string]any{"oneOf": append(either, object{fields: w.with, only: true}.schema())}
}

// unlockShape takes a way to open the volume.
func unlockShape(dst *Way, types tokens.Set) shape {
	w := waysShape{dst: dst, words: []string{Headless, Ask, Empty}, with: []field{
		{name: File, about: "this file; a line end at its end does not count", value: absolute(&dst.Value)},
		{name: KeyFile, about: "this file, every byte of it", value: absolute(&dst.Value)},
		{name: Credential, about: "this file in $CREDENTIALS_DIRECTORY, every byte of it", value: credential(&dst.Value)},
		{name: Keyring, about: "the key of this description in the kernel keyring", value: plain(&dst.Value)},
	}}
	for _, h := range types {
		if _, ok := h.(tokens.Unlocker); ok {
			w.words = append(w.words, h.Name())
			w.with = append(w.with, field{name: h.Name(), about: "a token of this type, by this device", value: plain(&dst.Value)})
		}
	}
	return w
}

func credential(dst *string) shape {
	return scalar{set: func(at Place, value string) error {
		if err := credentialName(value); err != nil {
			return at.Wrap(err)
		}
		*dst = value
		return nil
	}}
}

// absentShape is that of keyslots to be wiped.
func absentShape(a *Absent, types tokens.Set) shape {
	kinds := []string{Password}
	for _, h := range types {
		kinds = append(kinds, h.Name())
	}
	kinds = append(kinds, tokens.KindOther)
	until := ""
	return after{object{place: &a.Place, fields: []field{
		{name: "label", about: "the keyslot with this label", value: label(&a.Label, tokens.MaxLabel)},
		{name: "type", about: "keyslots of this type", value: word(&a.Type, kinds...)},
		{name: "opens-with", about: "keyslots that this file opens, with its last line end or without", value: absolute(&a.OpensWith)},
		{name: "keep-until", about: "boot: only after a boot that opened the volume with one of keyslots", value: word(&until, "boot")},
	}}, func(n node) error {
		a.AfterBoot = until == "boot"
		given := 0
		for _, v := range []string{a.Label, a.Type, a.OpensWith} {
			if v != "" {
				given++
			}
		}
		if given != 1 {
			return n.Errorf("want exactly one of label, type, opens-with")
		}
		return nil
	}}
}
