package spec

import (
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// handoutShape takes where a new recovery key goes.
func handoutShape(dst **Handout) shape {
	h := &Handout{}
	fields := object{place: &h.Place, fields: []field{
		{name: File, about: "this file, which only its owner can read; {uuid} in its name is the volume's. A key that is there already is used. With escrow the file gets the encrypted key", value: absolute(&h.File)},
		{name: "escrow", about: "public keys of age, to which the key is encrypted; with file", value: list{func() shape {
			h.Escrow = append(h.Escrow, Text{})
			return text(&h.Escrow[len(h.Escrow)-1])
		}}},
		{name: "sheet", about: "this file for printing, PDF or PNG", value: absolute(&h.Sheet)},
		{name: "command", about: "a program and its arguments, which read the key from the standard input", value: command(&h.Command)},
	}}
	return after{either{"terminal", func() { h.Terminal = true }, fields}, func(n node) error {
		h.Place = n.Place
		*dst = h
		return h.check(n)
	}}
}

// check wants one destination.
func (h *Handout) check(n node) error {
	given := 0
	for _, is := range []bool{h.File != "", h.Sheet != "", h.Command != nil, h.Terminal} {
		if is {
			given++
		}
	}
	switch {
	case h.Escrow != nil && (h.File == "" || given != 1):
		return n.Errorf("escrow goes with file, for the encrypted key, and nothing else")
	case given != 1:
		return n.Errorf("want exactly one of file, sheet, command, terminal")
	}
	return nil
}

// either takes a word alone, or something else.
type either struct {
	word      string
	set       func()
	otherwise shape
}

func (e either) read(n node) error {
	if n.Kind != yaml.ScalarNode {
		return e.otherwise.read(n)
	}
	return scalar{words: []string{e.word}, set: func(Place, string) error { e.set(); return nil }}.read(n)
}

func (e either) schema() map[string]any {
	return map[string]any{"oneOf": []any{map[string]any{"const": e.word}, e.otherwise.schema()}}
}

// command takes a program, by its path, and its arguments.
func command(dst *[]string) shape {
	words := list{func() shape {
		return scalar{set: func(at Place, value string) error {
			if len(*dst) == 0 && !filepath.IsAbs(value) {
				return at.Errorf("%.60q is not the absolute path of a program", value)
			}
			*dst = append(*dst, value)
			return nil
		}}
	}}
	return after{words, func(n node) error {
		if len(*dst) == 0 {
			return n.Errorf("want a program and its arguments")
		}
		return nil
	}}
}

// crypttabShape takes the options of a line.
func crypttabShape(dst **Crypttab) shape {
	c := &Crypttab{}
	return after{object{place: &c.Place, fields: []field{
		{name: File, about: "this file; by default /etc/crypttab", value: absolute(&c.File)},
		{name: "options", required: true, about: "what the options of the line shall have; others stay", value: list{func() shape {
			return scalar{set: func(_ Place, value string) error { c.Options = append(c.Options, value); return nil }}
		}}},
	}}, func(node) error { *dst = c; return nil }}
}
