// Package jsondoc holds a JSON text as an ordered document that is edited in
// place: what an edit does not name stays as it is, byte for byte, with its
// order, white space and number spelling. Names are compared exactly, unlike in
// encoding/json, and of several members with one name the last one counts, as in
// json-c.
//
// The text is untrusted. Size, depth and number of values are limited.
package jsondoc

import (
	"bytes"
	"fmt"
	"iter"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a document.
const (
	MaxSize   = 4 << 20 // bytes of text; the largest JSON area of LUKS2
	MaxDepth  = 32      // nested values, json-c's JSON_TOKENER_DEFAULT_DEPTH
	MaxValues = 1 << 16 // values; real headers have some hundred
)

// Kind is the type of a value as json-c sees it.
type Kind uint8

// A number with a fraction or an exponent is a Real, any other an Int.
const (
	Missing Kind = iota
	Null
	Bool
	Int
	Real
	String
	Array
	Object
)

var kindNames = [...]string{"missing", "null", "a boolean", "an integer", "a real number", "a string", "an array", "an object"}

func (k Kind) String() string { return kindNames[k] }

// SyntaxError says where and why a text is not acceptable JSON.
type SyntaxError struct {
	Offset int // bytes from the start of the text
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("offset %d: %s", e.Offset, e.Reason) }

// node is one value. Children of an array or object form a list through next.
type node struct {
	start, end       int32 // of the value in the text
	keyStart, keyEnd int32 // of the member's name with its quotes; both 0 in arrays
	next, child      int32 // 0 is none: node 0 is the root
	kind             Kind
	escaped          bool // the name has a backslash
}

// Doc is a parsed text. It is not safe for concurrent use while it is edited.
type Doc struct {
	text  []byte
	nodes []node
}

// Value is one value of a document, valid until the next edit. The zero Value
// is of kind Missing and answers every question with "no".
type Value struct {
	d *Doc
	i int32
}

// Bytes is the text of the document. The caller must not change it.
func (d *Doc) Bytes() []byte { return d.text }

// Root is the outermost value.
func (d *Doc) Root() Value { return Value{d, 0} }

// Clone returns an independent copy.
func (d *Doc) Clone() *Doc {
	// Edits replace both slices instead of writing into them.
	c := *d
	return &c
}

func (v Value) node() *node { return &v.d.nodes[v.i] }

// Kind is the type of the value.
func (v Value) Kind() Kind {
	if v.d == nil {
		return Missing
	}
	return v.node().kind
}

// Raw is the text of the value, nil if it is missing. It must not be changed.
func (v Value) Raw() []byte {
	if v.d == nil {
		return nil
	}
	n := v.node()
	return v.d.text[n.start:n.end:n.end]
}

// Offset is the position of the value in the document's text.
func (v Value) Offset() int {
	if v.d == nil {
		return 0
	}
	return int(v.node().start)
}

// children walks the values of an array or object in their order.
func (v Value) children() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.d == nil {
			return
		}
		for i := v.node().child; i != 0; i = v.d.nodes[i].next {
			if !yield(Value{v.d, i}) {
				return
			}
		}
	}
}

// Len is the number of elements or members, repeated names included.
func (v Value) Len() int {
	n := 0
	for range v.children() {
		n++
	}
	return n
}

// Elems are the elements of an array; nothing for any other value.
func (v Value) Elems() iter.Seq[Value] {
	if v.Kind() != Array {
		return func(func(Value) bool) {}
	}
	return v.children()
}

// Members are the members of an object in their order; nothing for any other
// value. A name that occurs again is yielded again.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Object {
			return
		}
		for c := range v.children() {
			if !yield(c.name(), c) {
				return
			}
		}
	}
}

// Effective maps the names of an object to the member that counts for each, as a
// reader that keeps the last one sees it.
func (v Value) Effective() map[string]Value {
	m := make(map[string]Value)
	for name, c := range v.Members() {
		m[name] = c
	}
	return m
}

// Get returns the member with that name, the last one if there are several.
func (v Value) Get(name string) Value {
	var found Value
	if v.Kind() != Object {
		return found
	}
	for c := range v.children() {
		if c.named(name) {
			found = c
		}
	}
	return found
}

// At follows member names inwards.
func (v Value) At(path ...string) Value {
	for _, name := range path {
		v = v.Get(name)
	}
	return v
}

func (v Value) named(name string) bool {
	n := v.node()
	if n.escaped {
		return v.name() == name
	}
	return string(v.d.text[n.keyStart+1:n.keyEnd-1]) == name
}

// Name is the name of a member; it makes no sense for an element of an array.
func (v Value) Name() string { return v.name() }

func (v Value) name() string {
	n := v.node()
	return unquote(v.d.text[n.keyStart:n.keyEnd])
}

// Text is the content of a string. It reports false for other values and for a
// string with a NUL character, which readers in C see cut.
func (v Value) Text() (string, bool) {
	if v.Kind() != String {
		return "", false
	}
	s := unquote(v.Raw())
	for i := range len(s) {
		if s[i] == 0 {
			return "", false
		}
	}
	return s, true
}

// Is reports whether the value is that string.
func (v Value) Is(s string) bool {
	t, ok := v.Text()
	return ok && t == s
}

// HasString reports whether an array has that string as an element.
func (v Value) HasString(s string) bool {
	for e := range v.Elems() {
		if e.Is(s) {
			return true
		}
	}
	return false
}

// Int is the value of an integer. Like json-c it takes the nearest int64 for
// numbers beyond.
func (v Value) Int() (int64, bool) {
	if v.Kind() != Int {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v.Raw()), 10, 64)
	if err != nil { // out of range: the syntax was checked
		if v.Raw()[0] == '-' {
			return math.MinInt64, true
		}
		return math.MaxInt64, true
	}
	return n, true
}

// Digits is the number in a string of decimal digits, which is how LUKS2 writes
// 64-bit quantities. It reports false for anything else.
func (v Value) Digits() (uint64, bool) {
	s, ok := v.Text()
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// unquote decodes a string with its quotes, whose syntax is known to be right.
// Lone surrogates become U+FFFD; bytes that are no UTF-8 stay.
func unquote(q []byte) string {
	s := q[1 : len(q)-1]
	if bytes.IndexByte(s, '\\') < 0 {
		return string(s)
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if s[i] != 'u' {
			out = append(out, unescape(s[i]))
			continue
		}
		r := rune(hex4(s[i+1:]))
		i += 4
		if utf16.IsSurrogate(r) {
			low := rune(utf8.RuneError)
			if len(s) > i+6 && s[i+1] == '\\' && s[i+2] == 'u' {
				low = utf16.DecodeRune(r, rune(hex4(s[i+3:])))
			}
			if r = low; r != utf8.RuneError {
				i += 6
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

func hex4(s []byte) uint16 {
	n, err := strconv.ParseUint(string(s[:4]), 16, 16)
	if err != nil {
		return utf8.RuneError // not reached: the parser checked the digits
	}
	return uint16(n)
}
