//go:build !purego

package keyarea

import (
	"reflect"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// schedule is a key schedule of crypto/aes, as it is in the struct behind its
// cipher.Block: see newSchedule.
type schedule struct {
	rounds   int
	enc, dec [60]uint32
}

//go:noescape
func encryptSector(keys *uint32, rounds int, data, mask *byte)

//go:noescape
func decryptSector(keys *uint32, rounds int, data, mask *byte)

//go:noescape
func doubleMask(mask *byte)

// newSchedule finds the schedule of a block cipher. It is nil where the processor has
// no instructions for AES, or crypto/aes keeps its schedule in another way, which two
// blocks show: they have to be what they are by its own interface.
func newSchedule(b oneWay) *schedule {
	v := reflect.ValueOf(b.Block)
	if !cpu.X86.HasAES || v.Kind() != reflect.Pointer || v.Type().Elem().Size() != unsafe.Sizeof(schedule{}) {
		return nil
	}
	s := (*schedule)(v.UnsafePointer())
	if s.rounds != 10 && s.rounds != 12 && s.rounds != 14 {
		return nil
	}
	var got, mask [sectorSize]byte
	var want [16]byte
	got[sectorSize-1], want[15] = 1, 1
	s.crypt(got[:], &mask, b.decrypt)
	b.do(want[:])
	same := [16]byte(got[sectorSize-16:]) == want
	clear(want[:])
	b.do(want[:])
	if same = same && [16]byte(got[:]) == want; !same {
		return nil
	}
	return s
}

// crypt is data ← AES(data ⊕ mask) ⊕ mask for each block of a sector. The first block
// of the mask is given, the others are made here.
func (s *schedule) crypt(data []byte, mask *[sectorSize]byte, decrypt bool) {
	_ = data[sectorSize-1]
	doubleMask(&mask[0])
	if decrypt {
		decryptSector(&s.dec[0], s.rounds, &data[0], &mask[0])
	} else {
		encryptSector(&s.enc[0], s.rounds, &data[0], &mask[0])
	}
}
