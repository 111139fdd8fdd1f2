package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"luksmith/crypttab"
)

// node is a part of a file and where it stands.
type node struct {
	*yaml.Node
	Place
}

// at is a node below this one.
func (n node) at(field string, y *yaml.Node) node {
	for y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	return node{y, Place{n.Name, y.Line, strings.TrimPrefix(n.Field+field, ".")}}
}

// isNull reports whether nothing stands there.
func (n node) isNull() bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// shape reads a node, and describes as JSON Schema what it takes. One value does
// both, so that the published schema says what is read.
type shape interface {
	read(n node) error
	schema() map[string]any
}

// field is one member of an object.
type field struct {
	name, about string
	required    bool
	value       shape
}

// object takes a mapping with these fields and no others.
type object struct {
	place  *Place // is set to where it stands; may be nil
	fields []field
	// only takes exactly one field.
	only bool
}

func (o object) read(n node) error {
	if n.Kind != yaml.MappingNode {
		return n.Errorf("want fields such as %s", o.names()[0])
	}
	if o.place != nil {
		*o.place = n.Place
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.at("", n.Content[i])
		name := hyphens(key.Value)
		value := n.at("."+name, n.Content[i+1])
		value.Place.Line = key.Place.Line
		f, err := o.field(value, name, seen)
		if err != nil {
			return err
		}
		seen[name] = key.Place.Line
		if err := f.value.read(value); err != nil {
			return err
		}
	}
	return o.complete(n, seen)
}

// hyphens is a name as this format spells it: YAML files often have underscores.
func hyphens(name string) string { return strings.ReplaceAll(name, "_", "-") }

// field is the one that a key names.
func (o object) field(at node, name string, seen map[string]int) (*field, error) {
	if line, twice := seen[name]; twice {
		return nil, at.Errorf("the field is there twice, first in line %d", line)
	}
	i := slices.IndexFunc(o.fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return nil, unknown(at.Place, "unknown field", name, o.names())
	}
	return &o.fields[i], nil
}

// complete refuses an object in which fields are missing or too many.
func (o object) complete(n node, seen map[string]int) error {
	for _, f := range o.fields {
		if _, there := seen[f.name]; f.required && !there {
			return n.Errorf("the field %s is missing", f.name)
		}
	}
	if o.only && len(seen) != 1 {
		return n.Errorf("want exactly one of %s", strings.Join(o.names(), ", "))
	}
	return nil
}

func (o object) names() []string {
	var list []string
	for _, f := range o.fields {
		list = append(list, f.name)
	}
	return list
}

func (o object) schema() map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range o.fields {
		s := f.value.schema()
		if f.about != "" {
			s = maps.Clone(s)
			s["description"] = f.about
		}
		properties[f.name] = s
		if f.required {
			required = append(required, f.name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	if o.only {
		s["minProperties"], s["maxProperties"] = 1, 1
	}
	return s
}

// unknown suggests the word that was meant.
func unknown(at Place, what, word string, known []string) error {
	if near := crypttab.Nearest(word, known); near != "" {
		return at.Errorf("%s; did you mean %s?", what, near)
	}
	return at.Errorf("%s; known are %s", what, strings.Join(known, ", "))
}

// list takes a sequence; item makes the shape of its next element.
type list struct{ item func() shape }

func (l list) read(n node) error {
	if n.Kind != yaml.SequenceNode {
		return n.Errorf("want a list")
	}
	for i, y := range n.Content {
		if err := l.item().read(n.at(fmt.Sprintf("[%d]", i), y)); err != nil {
			return err
		}
	}
	return nil
}

func (l list) schema() map[string]any {
	return map[string]any{"type": "array", "items": l.item().schema()}
}

// scalar takes a text, number or boolean as it is written.
type scalar struct {
	set   func(at Place, text string) error
	words []string // the only ones; nil for any text
	types []string // of JSON; nil for text
}

func (s scalar) read(n node) error {
	value := n.Value
	if s.words != nil {
		value = hyphens(value)
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		return n.Errorf("want one value")
	case n.isNull() || n.Value == "" && s.words == nil && s.types == nil:
		return n.Errorf("the value is empty")
	case s.words != nil && !slices.Contains(s.words, value):
		return unknown(n.Place, fmt.Sprintf("unknown word %.60q", n.Value), value, s.words)
	}
	return s.set(n.Place, value)
}

func (s scalar) schema() map[string]any {
	switch {
	case s.words != nil:
		return map[string]any{"enum": s.words}
	case s.types != nil:
		return map[string]any{"type": s.types}
	}
	return map[string]any{"type": "string", "minLength": 1}
}

// text keeps a value and where it stands.
func text(dst *Text) shape {
	return scalar{set: func(at Place, value string) error { *dst = Text{at, value}; return nil }}
}

// plain keeps a value.
func plain(dst *string) shape {
	return scalar{set: func(_ Place, value string) error { *dst = value; return nil }}
}

// word keeps one of several words.
func word[T ~string](dst *T, words ...T) shape {
	var list []string
	for _, w := range words {
		list = append(list, string(w))
	}
	return scalar{words: list, set: func(_ Place, value string) error { *dst = T(value); return nil }}
}

// values takes what an option takes: one value, or several that are joined by commas.
type values struct {
	set func(at Place, value string) error
}

func (v values) read(n node) error {
	if n.Kind != yaml.SequenceNode {
		return scalar{set: v.set, types: []string{}}.read(n)
	}
	var parts []string
	join := scalar{set: func(_ Place, value string) error { parts = append(parts, value); return nil }}
	if err := (list{func() shape { return join }}).read(n); err != nil {
		return err
	}
	return v.set(n.Place, strings.Join(parts, ","))
}

func (values) schema() map[string]any {
	one := []string{"string", "number", "boolean"}
	return map[string]any{"type": append(one, "array"), "items": map[string]any{"type": one}}
}

// boolean takes yes or no.
type boolean struct{ set func(at Place, yes bool) }

func (b boolean) read(n node) error {
	return scalar{set: func(at Place, value string) error {
		yes, err := crypttab.ParseBool(value)
		if err != nil {
			return at.Errorf("%.60q is neither yes nor no", value)
		}
		b.set(at, yes)
		return nil
	}}.read(n)
}

func (boolean) schema() map[string]any {
	return map[string]any{"enum": []any{true, false, "yes", "no"}}
}
