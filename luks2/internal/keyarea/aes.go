package keyarea

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// errKeySize is about a key that the algorithm does not take.
var errKeySize = errors.New("key of the wrong length")

// oneWay is one direction of AES.
type oneWay struct {
	cipher.Block
	decrypt bool
}

func newBlock(key []byte, decrypt bool) (oneWay, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return oneWay{}, errKeySize
	}
	return oneWay{c, decrypt}, nil
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
// applies them in one go, where it can with a kernel in assembly that has many blocks
// under way; x/crypto/xts goes by bytes and takes ten times as long.
type xtsAES struct {
	data, tweak oneWay
	schedule    *schedule // of data; nil where there is no kernel
	mask        [sectorSize]byte
}

func newXTS(key []byte, decrypt bool) (engine, error) {
	half := len(key) / 2
	data, err := newBlock(key[:half], decrypt)
	if err != nil || len(key)%2 != 0 {
		return nil, errKeySize
	}
	tweak, err := newBlock(key[half:], false)
	if err != nil {
		return nil, err
	}
	return &xtsAES{data: data, tweak: tweak, schedule: newSchedule(data)}, nil
}

func (x *xtsAES) crypt(sector, iv []byte) error {
	first := x.mask[:aes.BlockSize]
	copy(first, iv)
	x.tweak.do(first)
	if x.schedule != nil {
		x.schedule.crypt(sector, &x.mask, x.data.decrypt)
		return nil
	}
	x.setMask()
	subtle.XORBytes(sector, sector, x.mask[:])
	for i := 0; i < sectorSize; i += aes.BlockSize {
		b := sector[i : i+aes.BlockSize : i+aes.BlockSize]
		x.data.do(b)
	}
	subtle.XORBytes(sector, sector, x.mask[:])
	return nil
}

// setMask computes the tweaks of all blocks of a sector from the first one.
func (x *xtsAES) setMask() {
	first := x.mask[:aes.BlockSize]
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

// cbc is AES-CBC. crypto/cipher's copies the key schedule to where it cannot be
// overwritten.
type cbc struct{ oneWay }

func newCBC(key []byte, decrypt bool) (engine, error) {
	b, err := newBlock(key, decrypt)
	return cbc{b}, err
}

func (c cbc) crypt(sector, iv []byte) error {
	previous := [aes.BlockSize]byte(iv)
	for i := 0; i < len(sector); i += aes.BlockSize {
		b := sector[i : i+aes.BlockSize : i+aes.BlockSize]
		if c.decrypt {
			next := [aes.BlockSize]byte(b)
			c.do(b)
			subtle.XORBytes(b, b, previous[:])
			previous = next
		} else {
			subtle.XORBytes(b, b, previous[:])
			c.do(b)
			previous = [aes.BlockSize]byte(b)
		}
	}
	return nil
}

// ecb is AES block by block, for the IVs of ESSIV and EBOIV.
type ecb struct{ oneWay }

func newECB(key []byte, decrypt bool) (engine, error) {
	b, err := newBlock(key, decrypt)
	return ecb{b}, err
}

func (e ecb) crypt(data, _ []byte) error {
	for ; len(data) > 0; data = data[aes.BlockSize:] {
		e.do(data[:aes.BlockSize:aes.BlockSize])
	}
	return nil
}
