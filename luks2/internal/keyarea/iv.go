package keyarea

import (
	"encoding/binary"
	"math/bits"
	"strings"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// ivMaker gives each sector its IV, by the rules of dm-crypt that libcryptsetup has
// too.
type ivMaker struct {
	iv    []byte // of the sector that was set last
	set   func(iv []byte, sector uint64)
	block engine // encrypts the IV itself; nil for most rules
}

// numberings are the rules that need no key. benbi counts blocks of the cipher from
// 1; there is one for each 16 bytes unless the IV is shorter.
var numberings = [...]struct {
	name string
	set  func(iv []byte, sector uint64)
}{
	{"null", func([]byte, uint64) {}},
	{"plain", func(iv []byte, sector uint64) { binary.LittleEndian.PutUint32(iv, uint32(sector)) }},
	{"plain64", littleEndian},
	{"plain64be", func(iv []byte, sector uint64) { binary.BigEndian.PutUint64(iv[len(iv)-8:], sector) }},
	{"benbi", func(iv []byte, sector uint64) {
		blocks := sectorSize / uint64(len(iv))
		binary.BigEndian.PutUint64(iv[len(iv)-8:], sector<<bits.TrailingZeros64(blocks)+1)
	}},
}

func littleEndian(iv []byte, sector uint64) { binary.LittleEndian.PutUint64(iv, sector) }

// newIVs prepares the rule of an algorithm for a key. It reports false for one that
// is not known.
func (a algorithm) newIVs(key []byte) (m ivMaker, ok bool, err error) {
	m.iv = make([]byte, a.ivSize())
	if len(m.iv) == 0 {
		m.set = func([]byte, uint64) {}
		return m, a.iv == "", nil
	}
	for _, n := range numberings {
		if strings.EqualFold(a.iv, n.name) {
			m.set = n.set
			return m, true, nil
		}
	}
	if strings.EqualFold(a.iv, "eboiv") {
		m.set = func(iv []byte, sector uint64) { littleEndian(iv, sector*sectorSize) }
		m.block, err = a.blocks(key)
		return m, true, err
	}
	f, ok := a.essivHash()
	if !ok {
		return m, false, nil
	}
	h := f.New()
	defer hashes.Forget(h)
	h.Write(key)
	salt := h.Sum(nil)
	defer secret.Wipe(salt)
	m.set = littleEndian
	m.block, err = a.blocks(salt)
	return m, true, err
}

// essivHash is the hash that makes the key of ESSIV's IVs.
func (a algorithm) essivHash() (hashes.Func, bool) {
	if len(a.iv) < len("essiv:") || !strings.EqualFold(a.iv[:len("essiv:")], "essiv:") {
		return hashes.Func{}, false
	}
	return hashes.ByName(a.iv[len("essiv:"):])
}

// blocks encrypts single blocks with the algorithm's cipher.
func (a algorithm) blocks(key []byte) (engine, error) {
	return algorithm{cipher: a.cipher, mode: "ecb"}.newEngine(key, false)
}

// next sets the IV of a sector.
func (m *ivMaker) next(sector uint64) error {
	clear(m.iv)
	m.set(m.iv, sector)
	if m.block == nil {
		return nil
	}
	return m.block.crypt(m.iv, nil)
}

func (m *ivMaker) forget() {
	if m.block != nil {
		m.block.forget()
	}
	clear(m.iv)
}
