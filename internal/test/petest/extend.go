package petest

import "encoding/binary"

// Extend adds sections to a program, as tools do that make a unified kernel image of a
// stub. The headers must have room for them.
func Extend(program []byte, sections ...Section) []byte {
	le := binary.LittleEndian
	b := append([]byte(nil), program...)
	pe := int(le.Uint32(b[0x3c:]))
	count, optionalSize := int(le.Uint16(b[pe+6:])), int(le.Uint16(b[pe+20:]))
	o := pe + 24
	table := o + optionalSize
	page := max(le.Uint32(b[o+32:]), 0x1000)
	if table+40*(count+len(sections)) > int(le.Uint32(b[o+60:])) {
		panic("no room for more sections")
	}
	b = append(b, make([]byte, align(len(b))-len(b))...)
	for _, s := range sections {
		at := (le.Uint32(b[o+56:]) + page - 1) / page * page
		h := b[table+40*count:]
		copy(h[:8], s.Name)
		le.PutUint32(h[8:], uint32(len(s.Data)))
		le.PutUint32(h[12:], at)
		le.PutUint32(h[16:], uint32(align(len(s.Data))))
		le.PutUint32(h[20:], uint32(len(b)))
		le.PutUint32(h[36:], 0x40000040) // initialised data, readable
		le.PutUint32(b[o+56:], (at+uint32(len(s.Data))+page-1)/page*page)
		count++
		b = append(b, s.Data...)
		b = append(b, make([]byte, align(len(b))-len(b))...)
	}
	le.PutUint16(b[pe+6:], uint16(count))
	return b
}
