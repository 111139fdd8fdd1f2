package luks2

import (
	"bytes"
	"encoding/base64"
	"math"
	"slices"

	"luksmith/luks2/internal/jsondoc"
)

// header decodes the chosen copy. Nothing can fail: what a rule did not demand
// and is not there decodes to zero values, which open nothing.
func (h *loaded) header() *Header {
	bin, v := h.chosen.bin, h.chosen.view
	out := &Header{
		UUID: bin.uuid(), Label: bin.label(), Subsystem: bin.subsystem(), SeqID: bin.seqID(), Size: int(bin.size()),
		requirement: v.requirement, identity: h.identity(), Foreign: h.foreign,
	}
	for i, c := range h.copies {
		out.Copies[i] = CopyStatus{Offset: c.at, Chosen: c == h.chosen, Err: c.err}
		if c.intact {
			out.Copies[i].SeqID = c.bin.seqID()
		}
	}
	v.decode(out)
	return out
}

// own is a header for this package, which does not change it: decoded once for each
// reading that is not the one of before.
func (h *loaded) own() *Header {
	h.once.Do(func() { h.decoded = h.header() })
	return h.decoded
}

// decode fills in what comes from the document.
func (v *view) decode(out *Header) {
	for o := range v.digests.inOrder() {
		out.Digests = append(out.Digests, decodeDigest(o))
	}
	digestOf := make(map[int]int)
	for _, d := range slices.Backward(out.Digests) {
		for _, k := range d.Keyslots {
			digestOf[k] = d.ID
		}
	}
	for o := range v.keyslots.inOrder() {
		k := decodeKeyslot(o)
		if d, ok := digestOf[k.ID]; ok {
			k.Digest = d
		}
		out.Keyslots = append(out.Keyslots, k)
	}
	for o := range v.tokens.inOrder() {
		out.Tokens = append(out.Tokens, decodeToken(o))
	}
	for o := range v.segments.inOrder() {
		out.Segments = append(out.Segments, decodeSegment(o))
	}
	out.Config = v.decodeConfig()
	out.Space = v.space()
	out.Space.KeyslotsLeft = v.keyslotsLeft(out.dataKeySize())
}

func decodeDigest(o object) Digest {
	return Digest{
		ID: o.id, Type: text(o.Value, "type"), Keyslots: numbers(o.Get("keyslots")), Segments: numbers(o.Get("segments")),
		Hash: text(o.Value, "hash"), Iterations: integer(o.Value, "iterations"),
		Salt: base64Bytes(o.Get("salt")), Value: base64Bytes(o.Get("digest")),
	}
}

func decodeKeyslot(o object) Keyslot {
	k := Keyslot{
		ID: o.id, Type: text(o.Value, "type"), KeySize: integer(o.Value, "key_size"), Priority: PriorityNormal, Digest: -1,
		AF: AF{Type: text(o.Value, "af", "type"), Hash: text(o.Value, "af", "hash"), Stripes: integer(o.Value, "af", "stripes")},
		Area: Area{
			Type: text(o.Value, "area", "type"), Encryption: text(o.Value, "area", "encryption"),
			KeySize: integer(o.Value, "area", "key_size"), Offset: digits(o.Value, "area", "offset"), Size: digits(o.Value, "area", "size"),
		},
		KDF: KDF{
			Type: KDFType(text(o.Value, "kdf", "type")), Hash: text(o.Value, "kdf", "hash"),
			Iterations: integer(o.Value, "kdf", "iterations"), Time: integer(o.Value, "kdf", "time"),
			MemoryKiB: integer(o.Value, "kdf", "memory"), Parallel: integer(o.Value, "kdf", "cpus"),
			Salt: base64Bytes(o.At("kdf", "salt")),
		},
	}
	if o.Get("priority").Kind() != jsondoc.Missing {
		k.Priority = Priority(integer(o.Value, "priority"))
	}
	return k
}

func decodeToken(o object) Token {
	return Token{ID: o.id, Type: text(o.Value, "type"), Keyslots: numbers(o.Get("keyslots")), Raw: bytes.Clone(o.Raw())}
}

func decodeSegment(o object) Segment {
	s := Segment{
		ID: o.id, Type: text(o.Value, "type"), Offset: digits(o.Value, "offset"), Size: digits(o.Value, "size"),
		Encryption: text(o.Value, "encryption"), SectorSize: integer(o.Value, "sector_size"), IVTweak: digits(o.Value, "iv_tweak"),
		Flags: texts(o.Get("flags")), Raw: bytes.Clone(o.Raw()),
	}
	if i := o.Get("integrity"); i.Kind() == jsondoc.Object {
		s.Integrity = &Integrity{
			Type: text(i, "type"), JournalEncryption: text(i, "journal_encryption"),
			JournalIntegrity: text(i, "journal_integrity"), KeySize: integer(i, "key_size"),
		}
	}
	return s
}

func (v *view) decodeConfig() Config {
	return Config{
		JSONSize: digits(v.config, "json_size"), KeyslotsSize: v.keyslotsSize(),
		Flags: texts(v.config.Get("flags")), Requirements: slices.Clone(v.requirement.names),
	}
}

func (v *view) space() Space {
	s := Space{JSONTotal: v.hdrSize - binarySize - 1, JSONUsed: uint64(len(v.doc.Bytes())), AreasTotal: v.keyslotsSize()}
	s.AreasFree = s.AreasTotal
	for _, e := range v.areas() {
		s.AreasFree -= min(e.length, s.AreasFree)
	}
	return s
}

func text(v jsondoc.Value, path ...string) string {
	s, _ := v.At(path...).Text()
	return s
}

func texts(array jsondoc.Value) []string {
	var list []string
	for e := range array.Elems() {
		if s, ok := e.Text(); ok {
			list = append(list, s)
		}
	}
	return list
}

// integer is an int of at most 32 bits, the range that LUKS2 has; numbers beyond
// are cut to it, as libcryptsetup's json_object_get_int does.
func integer(v jsondoc.Value, path ...string) int {
	n, _ := v.At(path...).Int()
	return int(max(min(n, math.MaxInt32), math.MinInt32))
}

func digits(v jsondoc.Value, path ...string) uint64 {
	n, _ := v.At(path...).Digits()
	return n
}

// numbers decodes the names of objects, which LUKS2 writes as strings, in the
// order of the document.
func numbers(array jsondoc.Value) []int {
	var list []int
	for e := range array.Elems() {
		if s, ok := e.Text(); ok {
			if n, ok := number(s); ok {
				list = append(list, n)
			}
		}
	}
	return list
}

// base64Bytes decodes standard, padded base64, with or without line breaks. It
// returns nil for anything else.
func base64Bytes(v jsondoc.Value) []byte {
	s, ok := v.Text()
	if !ok {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
