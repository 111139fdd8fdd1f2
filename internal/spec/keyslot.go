package spec

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"luksmith/tokens"
)

// keyslotShape takes a keyslot: its field type decides which others there may be.
type keyslotShape struct {
	dst   *Keyslot
	types tokens.Set
}

const scalarKind = yaml.ScalarNode

func (k *keyslotShape) read(n node) error {
	name, err := k.typeOf(n)
	if err != nil {
		return err
	}
	if err := k.object(name).read(n); err != nil {
		return err
	}
	return k.dst.check(n)
}

// typeOf is the value of the field type, which may stand behind others.
func (k *keyslotShape) typeOf(n node) (name string, err error) {
	if n.Kind != yaml.MappingNode {
		return "", n.Errorf("want fields such as label and type")
	}
	known := k.names()
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "type" {
			err := scalar{words: known, set: func(_ Place, value string) error { name = value; return nil }}.read(n.at(".type", n.Content[i+1]))
			return name, err
		}
	}
	return "", n.Errorf("the field type is missing: one of %s", strings.Join(known, ", "))
}

// names are the types of keyslots that can be made.
func (k *keyslotShape) names() []string {
	list := []string{Password}
	for _, h := range k.types {
		if _, ok := h.(tokens.Enroller); ok {
			list = append(list, h.Name())
		}
	}
	return list
}

// schema has one alternative for each type.
func (k *keyslotShape) schema() map[string]any {
	var either []any
	for _, name := range k.names() {
		s := k.object(name).schema()
		properties := s["properties"].(map[string]any)
		properties["type"] = map[string]any{"const": name}
		either = append(either, s)
	}
	return map[string]any{"oneOf": either}
}

// object has the fields that all types have and those of one.
func (k *keyslotShape) object(name string) object {
	d := k.dst
	o := object{place: &d.Place, fields: []field{
		{name: "label", about: "the identity of the keyslot", required: true, value: label(&d.Label, MaxLabel)},
		{name: "type", required: true, value: plain(&d.Type)},
		{name: "priority", about: "when it is tried: prefer, normal, ignore", value: priority(&d.Priority)},
		{name: "require", about: "what the machine must have", value: requireShape(&d.Require, k.types)},
		{name: "keep-old", about: "boot: a keyslot that this one replaces is wiped only after a boot that opened the volume with this one",
			value: scalar{words: []string{"boot"}, set: func(Place, string) error { d.KeepOld = true; return nil }}},
	}}
	switch h := k.types.ByName(name); {
	case name == Password:
		o.fields = append(o.fields, d.passwordFields()...)
	case name == Recovery:
		o.fields = append(o.fields, d.recoveryFields()...)
	default:
		o.fields = append(o.fields, d.tokenFields(h, k.types)...)
	}
	return o
}

func priority(dst *Text) shape {
	words := []string{"prefer", "normal", "ignore"}
	return scalar{words: words, set: func(at Place, value string) error { *dst = Text{at, value}; return nil }}
}

func (d *Keyslot) passwordFields() []field {
	from := &Way{}
	fields := []field{{name: "from", required: true, about: "where the passphrase comes from", value: after{waysShape{dst: from, words: []string{Ask}, with: []field{
		{name: File, about: "this file; a line end at its end does not count", value: absolute(&from.Value)},
		{name: KeyFile, about: "this file, every byte of it", value: absolute(&from.Value)},
		{name: Credential, about: "this file in $CREDENTIALS_DIRECTORY, every byte of it", value: credential(&from.Value)},
	}}, func(node) error { d.From = from; return nil }}}}
	for _, name := range []string{"pbkdf", "pbkdf-memory", "pbkdf-parallel", "pbkdf-force-iterations"} {
		fields = append(fields, d.option(name, name, "as --"+name+"="))
	}
	return fields
}

func (d *Keyslot) recoveryFields() []field {
	from := &Way{}
	return []field{
		{name: "from", about: "a key that was made elsewhere", value: after{object{only: true, fields: []field{
			{name: File, about: "this file", value: absolute(&from.Value)},
		}}, func(n node) error { *from = Way{n.Place, File, from.Value}; d.From = from; return nil }}},
		{name: "to", about: "who gets a new key", value: handoutShape(&d.To)},
	}
}

// leftOut are options that make no token, which would have the label.
var leftOut = []string{"fido2-parameters-in-header"}

// tokenFields are the options of a type, without its name in front. One that combines
// others has their options under their full names.
func (d *Keyslot) tokenFields(h tokens.Handler, types tokens.Set) []field {
	fields := []field{
		{name: "pin-file", about: "the PIN is in this file: that of the security device, or the one to be set", value: absoluteText(&d.PINFile)},
		{name: "rebind", about: "when the keyslot is made anew although it demands what is listed here", value: word(&d.Rebind, WhenClosed, Never, Always)},
	}
	fields = append(fields, d.optionsOf(h, h.Name()+"-")...)
	if _, combines := h.(tokens.Combiner); !combines {
		return fields
	}
	for _, factor := range types {
		if _, ok := factor.(tokens.Unlocker); ok && factor != h {
			fields = append(fields, d.optionsOf(factor, "")...)
		}
	}
	return fields
}

func (d *Keyslot) optionsOf(h tokens.Handler, prefix string) (list []field) {
	for _, opt := range h.Options() {
		if opt.Place&tokens.Enrolling == 0 || slices.Contains(leftOut, opt.Name) {
			continue
		}
		name := strings.TrimPrefix(opt.Name, prefix)
		if opt.Arg == "" {
			list = append(list, d.toggle(name, opt.Name, opt.Help))
			continue
		}
		list = append(list, d.option(name, opt.Name, opt.Help))
	}
	return list
}

// option is a field whose value is that of an option.
func (d *Keyslot) option(name, option, about string) field {
	return field{name: name, about: about, value: values{func(at Place, value string) error {
		d.Options = append(d.Options, Option{at, option, value})
		return nil
	}}}
}

// toggle is a field for an option without value.
func (d *Keyslot) toggle(name, option, about string) field {
	return field{name: name, about: about, value: boolean{func(at Place, yes bool) {
		if yes {
			d.Options = append(d.Options, Option{at, option, ""})
		}
	}}}
}

// check compares fields with each other.
func (d *Keyslot) check(n node) error {
	if d.Type == Recovery && (d.From == nil) == (d.To == nil) {
		return n.Errorf("a recovery key needs exactly one of from and to")
	}
	if d.given("any") != d.given("of") {
		return n.Errorf("any and of need each other: how many, and of which")
	}
	return nil
}

// given reports whether an option was set.
func (d *Keyslot) given(name string) bool {
	return slices.ContainsFunc(d.Options, func(o Option) bool { return o.Name == name })
}

// Schema is what may stand in a spec with these token types, as JSON Schema.
func Schema(types tokens.Set) map[string]any {
	s := maps.Clone((&Spec{}).shape(types).schema())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "cryptenroll ensure"
	s["description"] = "The keyslots that LUKS2 volumes shall have: cryptenroll ensure --spec=FILE. See docs/ensure.md."
	return s
}
