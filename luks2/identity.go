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
