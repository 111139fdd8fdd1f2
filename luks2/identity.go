package luks2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
)

// identity is what must not change between two looks at a volume, or it is
// another volume or one with another key.
type identity struct {
	uuid     string
	segments [sha256.Size]byte
}

func (h *loaded) identity() identity {
	return identity{h.chosen.bin.uuid(), h.chosen.view.segmentsSum()}
}

// segmentsSum is a hash of the segments without white space, which another writer
// may drop.
func (v *view) segmentsSum() [sha256.Size]byte {
	var b bytes.Buffer
	if json.Compact(&b, v.segments.object.Raw()) != nil {
		return sha256.Sum256(v.segments.object.Raw()) // not UTF-8, or missing
	}
	return sha256.Sum256(b.Bytes())
}

// sum is a hash of what recognises a volume key, without the lists of keyslots
// and segments, which change in normal use.
func (d *Digest) sum() [sha256.Size]byte {
	var b []byte
	for _, part := range [][]byte{[]byte(d.Type), []byte(d.Hash), d.Salt, d.Value} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(d.Iterations)))
}

// ValidUUID reports whether a text is a UUID: 32 hexadecimal digits in the usual
// groups. A header may have any other text in its place.
func ValidUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && !isHex(s[i]) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
