// Package keyarea turns a volume key into the content of a keyslot area and back:
// the anti-forensic splitter and the sector encryption around it.
package keyarea

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// Stripes is the only number of anti-forensic stripes that LUKS1 and LUKS2 use
// (LUKS2 specification 1.1.3 §3.2.1). cryptsetup ignores the member "stripes".
const Stripes = 4000

const sectorSize = 512

// SplitSize is the length of a split key on the disk: whole sectors.
func SplitSize(keySize int) int {
	return (keySize*Stripes + sectorSize - 1) / sectorSize * sectorSize
}

// Split fills dst, of [SplitSize], with stripes that together give key: TKS1's
// AFsplit. Without any one of them nothing is known about the key.
func Split(f hashes.Func, key, dst []byte) {
	n := len(key)
	random, last := dst[:n*(Stripes-1)], dst[n*(Stripes-1):n*Stripes]
	rand.Read(random) // never fails, see crypto/rand
	clear(last)
	d := newDiffuser(f)
	defer d.forget()
	d.fold(random, last)
	subtle.XORBytes(last, last, key)
	clear(dst[n*Stripes:])
}

// Merge computes the key back from its stripes: AFmerge. The length of key says
// how large it is.
func Merge(f hashes.Func, stripes, key []byte) {
	m := newMerger(f, key)
	defer m.forget()
	m.take(stripes)
}

// merger computes a key from its stripes, as they come.
type merger struct {
	diffuser
	key  []byte
	left int // stripes to come
}

func newMerger(f hashes.Func, key []byte) *merger {
	clear(key)
	return &merger{newDiffuser(f), key, Stripes}
}

// take goes on with whole stripes, and passes over what follows the last one.
func (m *merger) take(stripes []byte) {
	n := len(m.key)
	folded := min(len(stripes)/n, m.left-1)
	m.fold(stripes[:folded*n], m.key)
	stripes = stripes[folded*n:]
	if m.left -= folded; m.left == 1 && len(stripes) >= n {
		subtle.XORBytes(m.key, m.key, stripes[:n])
		m.left = 0
	}
}

// newDiffuser makes the scratch space, which is to be forgotten.
func newDiffuser(f hashes.Func) diffuser {
	buf := secret.New(numberSize + f.Size + hashes.TailRoom)
	b := buf.Bytes()
	return diffuser{
		h: f.New(), buf: buf, number: b[:numberSize], sum: b[numberSize : numberSize+f.Size],
		tail: f.NewTail(0, numberSize+f.Size, b[numberSize+f.Size:]), // nil for some hashes
	}
}

func (d *diffuser) forget() {
	hashes.Forget(d.h)
	d.tail.Forget()
	d.buf.Wipe()
}

// fold runs stripes, but for the last one, through XOR and diffusion; the result is
// what hides the key in the last one.
func (d *diffuser) fold(stripes, out []byte) {
	if d.tail != nil && len(out)%len(d.sum) == 0 {
		d.whole(stripes, out)
		return
	}
	for ; len(stripes) > 0; stripes = stripes[len(out):] {
		subtle.XORBytes(out, out, stripes[:len(out)])
		d.diffuse(out)
	}
}

// numberSize is the length of a piece's number before the piece.
const numberSize = 4

// diffuser has the scratch space of 4000 diffusions.
type diffuser struct {
	h           hashes.State
	buf         secret.Secret // where the rest is
	tail        *hashes.Tail  // for pieces of the length of the hash; may be nil
	number, sum []byte
}

// diffuse replaces each piece of the length of the hash by the hash of its number
// and itself; a shorter rest gets the beginning of its hash.
func (d *diffuser) diffuse(block []byte) {
	for i := uint32(0); len(block) > 0; i++ {
		piece := block[:min(len(d.sum), len(block))]
		block = block[copy(piece, d.hash(i, piece)):]
	}
}

// whole is fold for keys of whole pieces, each of which goes into the message at once.
func (d *diffuser) whole(stripes, out []byte) {
	m, size := d.tail.Message(), len(d.sum)
	for len(stripes) > 0 {
		for at := 0; at < len(out); at += size {
			piece := out[at : at+size]
			binary.BigEndian.PutUint32(m, uint32(at/size))
			subtle.XORBytes(m[numberSize:], piece, stripes[:size])
			copy(piece, d.tail.Sum(nil))
			stripes = stripes[size:]
		}
	}
}

func (d *diffuser) hash(i uint32, piece []byte) []byte {
	if d.tail != nil && len(piece) == len(d.sum) {
		m := d.tail.Message()
		binary.BigEndian.PutUint32(m, i)
		copy(m[numberSize:], piece)
		return d.tail.Sum(nil)
	}
	binary.BigEndian.PutUint32(d.number, i)
	d.h.Reset()
	d.h.Write(d.number)
	d.h.Write(piece)
	return d.h.Sum(d.sum[:0])
}
