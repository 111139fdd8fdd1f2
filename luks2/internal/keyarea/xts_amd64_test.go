//go:build !purego

package keyarea

import (
	"bytes"
	"testing"

	"golang.org/x/sys/cpu"

	"luksmith/internal/test/testenv"
)

// TestAKernelComputesSectors where the processor can, and as crypto/aes does.
func TestAKernelComputesSectors(t *testing.T) {
	if !cpu.X86.HasAES {
		testenv.NotApplicable(t, "the processor has no instructions for AES")
	}
	for _, size := range []int{32, 48, 64} {
		for _, decrypt := range []bool{false, true} {
			e, err := newXTS(randomBytes(size), decrypt)
			if err != nil {
				t.Fatal(err)
			}
			x := e.(*xtsAES)
			if x.schedule == nil {
				t.Fatalf("%d bytes of key: no kernel", size)
			}
			fast, slow := randomBytes(sectorSize), make([]byte, sectorSize)
			copy(slow, fast)
			iv := randomBytes(16)
			if err := x.crypt(fast, iv); err != nil {
				t.Fatal(err)
			}
			x.schedule = nil
			if err := x.crypt(slow, iv); err != nil || !bytes.Equal(fast, slow) {
				t.Errorf("%d bytes of key, decrypt %v: the kernel gives something else", size, decrypt)
			}
		}
	}
}

// strangeBlock has a struct like that of crypto/aes, and another cipher.
type strangeBlock struct{ schedule }

func (*strangeBlock) BlockSize() int          { return 16 }
func (*strangeBlock) Encrypt(dst, src []byte) { copy(dst, src) }
func (*strangeBlock) Decrypt(dst, src []byte) { copy(dst, src) }

// largeBlock keeps it elsewhere.
type largeBlock struct {
	_ [8]byte
	strangeBlock
}

func TestNoKernelForAnotherSchedule(t *testing.T) {
	for _, rounds := range []int{0, 1, 10, 14, 1 << 40} {
		for _, decrypt := range []bool{false, true} {
			if newSchedule(oneWay{&strangeBlock{schedule{rounds: rounds}}, decrypt}) != nil {
				t.Errorf("%d rounds: a kernel that computes something else", rounds)
			}
		}
	}
	if newSchedule(oneWay{&largeBlock{}, false}) != nil {
		t.Error("a kernel for a struct of another size")
	}
}
