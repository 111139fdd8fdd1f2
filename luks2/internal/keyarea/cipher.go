package keyarea

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// Cipher is a sector encryption under the name that dm-crypt gives it.
type Cipher struct {
	Name     string
	KeySizes []int // bytes
	start    func(key []byte, decrypt bool) sectors
}

// sectors works on one sector after the other, in place.
type sectors interface {
	crypt(sector []byte, number uint64)
	forget()
}

var table = [...]Cipher{
	{"aes-xts-plain64", []int{32, 48, 64}, newXTS},
	{"aes-xts-plain", []int{32, 48, 64}, newXTS}, // the same below 2 TiB
	{"aes-cbc-essiv:sha256", []int{16, 24, 32}, newESSIV},
	{"aes-cbc-plain64", []int{16, 24, 32}, newCBC},
	{"aes-cbc-plain", []int{16, 24, 32}, newCBC},
}

// UnknownCipherError says that a key area cannot be computed here.
type UnknownCipherError struct {
	Name    string
	KeySize int // bytes
}

func (e *UnknownCipherError) Error() string {
	return fmt.Sprintf("cannot open this key area: cipher %q with a key of %d bits is not built in", e.Name, e.KeySize*8)
}

// ByName finds a cipher for keys of that many bytes.
func ByName(name string, keySize int) (Cipher, error) {
	for _, c := range table {
		if c.Name == name && slices.Contains(c.KeySizes, keySize) {
			return c, nil
		}
	}
	return Cipher{}, &UnknownCipherError{name, keySize}
}

// Encrypt encrypts area, a multiple of 512 bytes, in place. Sectors count from 0
// at its start, wherever on the disk it is.
func (c Cipher) Encrypt(key, area []byte) { c.run(key, area, false) }

// Decrypt is the inverse of [Cipher.Encrypt].
func (c Cipher) Decrypt(key, area []byte) { c.run(key, area, true) }

func (c Cipher) run(key, area []byte, decrypt bool) {
	secret.Do(func() {
		s := c.start(key, decrypt)
		defer s.forget()
		for i := 0; i*sectorSize < len(area); i++ {
			s.crypt(area[i*sectorSize:(i+1)*sectorSize], uint64(i))
		}
	})
}

// oneWay is one direction of a block cipher.
type oneWay struct {
	cipher.Block
	decrypt bool
}

// newBlock takes a key whose length the table has allowed.
func newBlock(key []byte, decrypt bool) oneWay {
	c, err := aes.NewCipher(key)
	if err != nil {
		panic("keyarea: " + err.Error())
	}
	return oneWay{c, decrypt}
}

// do works in place on one block.
func (b oneWay) do(p []byte) {
	if b.decrypt {
		b.Decrypt(p, p)
	} else {
		b.Encrypt(p, p)
	}
}

// forget overwrites the key schedule, which begins with the key itself.
func (b oneWay) forget() { hashes.Forget(b.Block) }

// xtsAES is XTS-AES of IEEE 1619. It computes the tweaks of a sector in words and
// applies them in one go; x/crypto/xts goes by bytes and takes four times as long.
type xtsAES struct {
	data, tweak oneWay
	mask        [sectorSize]byte
}

func newXTS(key []byte, decrypt bool) sectors {
	half := len(key) / 2
	return &xtsAES{data: newBlock(key[:half], decrypt), tweak: newBlock(key[half:], false)}
}

func (x *xtsAES) crypt(sector []byte, number uint64) {
	x.setMask(number)
	subtle.XORBytes(sector, sector, x.mask[:])
	for i := 0; i < sectorSize; i += aes.BlockSize {
		b := sector[i : i+aes.BlockSize : i+aes.BlockSize]
		x.data.do(b)
	}
	subtle.XORBytes(sector, sector, x.mask[:])
}

// setMask computes the tweaks of all blocks of a sector.
func (x *xtsAES) setMask(number uint64) {
	first := x.mask[:aes.BlockSize]
	binary.LittleEndian.PutUint64(first, number)
	clear(first[8:])
	x.tweak.do(first)
	lo, hi := binary.LittleEndian.Uint64(first), binary.LittleEndian.Uint64(first[8:])
	for m := x.mask[aes.BlockSize:]; len(m) > 0; m = m[aes.BlockSize:] {
		carry := uint64(int64(hi) >> 63) // all ones if the top bit is set
		hi = hi<<1 | lo>>63
		lo = lo<<1 ^ carry&0x87
		binary.LittleEndian.PutUint64(m, lo)
		binary.LittleEndian.PutUint64(m[8:], hi)
	}
}

func (x *xtsAES) forget() {
	x.data.forget()
	x.tweak.forget()
	secret.Wipe(x.mask[:])
}

// cbc is AES-CBC with the sector number as IV, encrypted first for ESSIV.
type cbc struct {
	data    oneWay
	essiv   oneWay // its zero value leaves the number in clear
	decrypt bool
}

func newCBC(key []byte, decrypt bool) sectors {
	return &cbc{data: newBlock(key, decrypt), decrypt: decrypt}
}

func newESSIV(key []byte, decrypt bool) sectors {
	salt := sha256.Sum256(key)
	defer secret.Wipe(salt[:])
	return &cbc{newBlock(key, decrypt), newBlock(salt[:], false), decrypt}
}

// crypt does not use crypto/cipher's CBC, which copies the key schedule to where
// it cannot be overwritten.
func (c *cbc) crypt(sector []byte, number uint64) {
	var iv [aes.BlockSize]byte
	binary.LittleEndian.PutUint64(iv[:], number)
	if c.essiv.Block != nil {
		c.essiv.do(iv[:])
	}
	previous := iv
	for i := 0; i < sectorSize; i += aes.BlockSize {
		b := sector[i : i+aes.BlockSize : i+aes.BlockSize]
		if c.decrypt {
			next := [aes.BlockSize]byte(b)
			c.data.do(b)
			subtle.XORBytes(b, b, previous[:])
			previous = next
		} else {
			subtle.XORBytes(b, b, previous[:])
			c.data.do(b)
			previous = [aes.BlockSize]byte(b)
		}
	}
}

func (c *cbc) forget() {
	c.data.forget()
	hashes.Forget(c.essiv.Block)
}
