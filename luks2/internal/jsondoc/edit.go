package jsondoc

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// NotThereError says that an edit names a place that the document lacks or that
// is of another kind.
type NotThereError struct {
	Path []string
	Want Kind
	Got  Kind
}

func (e *NotThereError) Error() string {
	return fmt.Sprintf("member %q is %v instead of %v", e.Path, e.Got, e.Want)
}

// find returns the value at a path, which must be of that kind.
func (d *Doc) find(want Kind, path []string) (Value, error) {
	v := d.Root().At(path...)
	if v.Kind() != want {
		return v, &NotThereError{path, want, v.Kind()}
	}
	return v, nil
}

// splice replaces text[from:to] and reads the result.
func (d *Doc) splice(from, to int32, parts ...[]byte) error {
	text := slices.Concat(d.text[:from], slices.Concat(parts...), d.text[to:])
	next, err := Parse(text)
	if err != nil {
		return err
	}
	*d = *next
	return nil
}

// quote writes a name or string as JSON, without encoding/json's HTML escapes.
func quote(s string) []byte {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < 0x20 || c == 0x7f:
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}

// Quote returns s as a JSON string.
func Quote(s string) json.RawMessage { return quote(s) }

// Set gives the member at the end of path a new value. A member that is not there
// yet is added behind the others; the object around it must exist. Of several
// members with one name the last, which is the one that counts, is changed.
func (d *Doc) Set(raw json.RawMessage, path ...string) error {
	if _, err := Parse(raw); err != nil {
		return fmt.Errorf("new value: %w", err)
	}
	last := len(path) - 1
	obj, err := d.find(Object, path[:last])
	if err != nil {
		return err
	}
	if old := obj.Get(path[last]); old.Kind() != Missing {
		n := old.node()
		return d.splice(n.start, n.end, raw)
	}
	return d.insert(obj, quote(path[last]), []byte(":"), raw)
}

// Append adds an element at the end of the array at path.
func (d *Doc) Append(raw json.RawMessage, path ...string) error {
	if _, err := Parse(raw); err != nil {
		return fmt.Errorf("new element: %w", err)
	}
	arr, err := d.find(Array, path)
	if err != nil {
		return err
	}
	return d.insert(arr, raw)
}

// insert puts text behind the last child of a list.
func (d *Doc) insert(list Value, parts ...[]byte) error {
	at, comma := list.node().start+1, []byte(nil)
	for c := range list.children() {
		at, comma = c.node().end, []byte(",")
	}
	return d.splice(at, at, slices.Concat([][]byte{comma}, parts)...)
}

// Delete removes every member with the last name of path from the object that the
// others lead to, and reports whether there was one.
func (d *Doc) Delete(path ...string) (bool, error) {
	last := len(path) - 1
	return d.remove(Object, path[:last], func(v Value) bool { return v.named(path[last]) })
}

// DeleteString removes every element that is the string s from the array at path
// and reports whether there was one.
func (d *Doc) DeleteString(s string, path ...string) (bool, error) {
	return d.remove(Array, path, func(v Value) bool { return v.Is(s) })
}

func (d *Doc) remove(kind Kind, path []string, match func(Value) bool) (bool, error) {
	list, err := d.find(kind, path)
	if err != nil {
		return false, err
	}
	return d.Prune(Cut{list, match})
}

// Cut says what to take out of one array or object.
type Cut struct {
	List Value
	Drop func(child Value) bool // member or element
}

// Prune takes children out of lists of the document, each with the comma that
// separates it from its neighbour, and reports whether there was one. However many
// they are, the text is read once. A list inside a child that goes is no matter.
func (d *Doc) Prune(cuts ...Cut) (bool, error) {
	var gone []span
	for _, c := range cuts {
		gone = c.spans(gone)
	}
	if len(gone) == 0 {
		return false, nil
	}
	slices.SortFunc(gone, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	text, end := make([]byte, 0, len(d.text)), int32(0)
	for _, s := range gone {
		if s.from > end {
			text = append(text, d.text[end:s.from]...)
		}
		end = max(end, s.to)
	}
	next, err := Parse(append(text, d.text[end:]...))
	if err != nil {
		return false, err
	}
	*d = *next
	return true, nil
}

// span is a part of the text.
type span struct{ from, to int32 }

// spans adds the parts of the text that go. A child goes with what separates it
// from the one before; the first ones go with what separates them from the first
// that stays.
func (c Cut) spans(gone []span) []span {
	if k := c.List.Kind(); k != Array && k != Object {
		return gone
	}
	end := c.List.node().start + 1
	kept, open := false, int32(-1) // where the first ones began that go
	for v := range c.List.children() {
		n := v.node()
		switch drop := c.Drop(v); {
		case drop && kept:
			gone = append(gone, span{end, n.end})
		case drop && open < 0:
			open = end
		case !drop:
			if open >= 0 {
				gone = append(gone, span{open, n.begin()})
				open = -1
			}
			kept = true
		}
		end = n.end
	}
	if open >= 0 {
		gone = append(gone, span{open, end})
	}
	return gone
}

// begin is where the member or element starts, its name included.
func (n *node) begin() int32 {
	if n.keyEnd != 0 {
		return n.keyStart
	}
	return n.start
}
