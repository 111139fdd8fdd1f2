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
	fold(f, random, last)
	subtle.XORBytes(last, last, key)
	clear(dst[n*Stripes:])
}

// Merge computes the key back from its stripes: AFmerge. The length of key says
// how large it is.
func Merge(f hashes.Func, stripes, key []byte) {
	n := len(key)
	fold(f, stripes[:n*(Stripes-1)], key)
	subtle.XORBytes(key, key, stripes[n*(Stripes-1):n*Stripes])
}

// fold runs all but the last stripe through XOR and diffusion; the result is what
// hides the key in the last one.
func fold(f hashes.Func, stripes, out []byte) {
	h := f.New()
	defer hashes.Forget(h)
	buf := secret.New(4 + f.Size)
	defer buf.Wipe()
	number, sum := buf.Bytes()[:4], buf.Bytes()[4:]
	clear(out)
	for ; len(stripes) > 0; stripes = stripes[len(out):] {
		subtle.XORBytes(out, out, stripes[:len(out)])
		diffuse(h, number, sum, out)
	}
}

// diffuse replaces each piece of the length of the hash by the hash of its number
// and itself; a shorter rest gets the beginning of its hash. number and sum are
// scratch space, here so that 4000 calls need not allocate it.
func diffuse(h hashes.State, number, sum, block []byte) {
	for i := 0; len(block) > 0; i++ {
		binary.BigEndian.PutUint32(number, uint32(i))
		piece := block[:min(len(sum), len(block))]
		h.Reset()
		h.Write(number)
		h.Write(piece)
		block = block[copy(piece, h.Sum(sum[:0])):]
	}
}
