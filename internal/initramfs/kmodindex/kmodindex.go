// Package kmodindex reads the lists that depmod makes for modprobe: modules.dep.bin,
// modules.alias.bin, modules.builtin.bin and modules.builtin.alias.bin. Some tools leave
// nothing else of these lists in an image.
package kmodindex

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Entry is one value of a key. A module of modules.builtin.bin has one that is empty.
type Entry struct{ Key, Value string }

// ErrForm is about a file that is no list, or a damaged one.
var ErrForm = errors.New("no list of depmod's, or a damaged one")

// The form is that of libkmod/libkmod-index.h of kmod: numbers are big-endian; a node is
// named by its offset, whose upper bits say what it has.
const (
	magic      = 0xb007f457
	version    = 0x00020001
	hasPrefix  = 0x80000000
	hasValues  = 0x40000000
	hasNodes   = 0x20000000
	offsetMask = 0x0fffffff

	maxKey   = 4096
	maxNodes = 1 << 18
	maxText  = 64 << 20 // of all keys and values
)

// Read returns the entries of a list, those of a key in the order of their priority.
func Read(list []byte) ([]Entry, error) {
	if len(list) < 12 || binary.BigEndian.Uint32(list) != magic || binary.BigEndian.Uint32(list[4:]) != version {
		return nil, ErrForm
	}
	r := reader{list: list}
	if !r.node(binary.BigEndian.Uint32(list[8:]), nil) {
		return nil, ErrForm
	}
	return r.entries, nil
}

type reader struct {
	list    []byte
	entries []Entry
	nodes   int
	text    int
}

// node adds the entries of a node and of those below it. It reports whether they are
// well formed.
func (r *reader) node(at uint32, key []byte) bool {
	offset := int(at & offsetMask)
	if r.nodes++; r.nodes > maxNodes || len(key) > maxKey || offset > len(r.list) {
		return false
	}
	c := cursor{rest: r.list[offset:], ok: true}
	if at&hasPrefix != 0 {
		key = append(key, c.text()...)
	}
	var first byte
	var below []uint32
	if at&hasNodes != 0 {
		var last byte
		first, last = c.byte(), c.byte()
		for n := int(first); n <= int(last) && c.ok; n++ {
			below = append(below, c.number())
		}
	}
	if at&hasValues != 0 {
		for n := c.number(); n > 0 && c.ok; n-- {
			c.number() // priority
			value := c.text()
			if r.text += len(key) + len(value) + 1; r.text > maxText {
				return false
			}
			if c.ok {
				r.entries = append(r.entries, Entry{string(key), value})
			}
		}
	}
	for i, node := range below {
		if node != 0 && c.ok && !r.node(node, append(key[:len(key):len(key)], first+byte(i))) {
			return false
		}
	}
	return c.ok
}

// cursor reads what follows. At the end it is no longer ok, and reads zeros.
type cursor struct {
	rest []byte
	ok   bool
}

func (c *cursor) take(n int) []byte {
	if len(c.rest) < n {
		c.rest, c.ok = nil, false
		return make([]byte, n)
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) byte() byte     { return c.take(1)[0] }
func (c *cursor) number() uint32 { return binary.BigEndian.Uint32(c.take(4)) }

// text is what comes before a zero byte.
func (c *cursor) text() string {
	text, rest, found := bytes.Cut(c.rest, []byte{0})
	if c.rest = rest; !found || len(text) > maxKey {
		c.rest, c.ok = nil, false
		return ""
	}
	return string(text)
}
