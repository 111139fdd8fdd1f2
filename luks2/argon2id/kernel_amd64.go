//go:build !purego

package argon2id

import "golang.org/x/sys/cpu"

func fillSSSE3(c *chunk)
func fillAVX2(c *chunk)
func fillAVX512(c *chunk)

// kernels lists what this CPU can run, the slowest first.
func kernels() []kernel {
	list := []kernel{{"portable", fillPortable}}
	if cpu.X86.HasSSSE3 {
		list = append(list, kernel{"SSSE3", fillSSSE3})
	}
	if cpu.X86.HasAVX2 {
		list = append(list, kernel{"AVX2", fillAVX2})
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW {
		list = append(list, kernel{"AVX-512", fillAVX512})
	}
	return list
}
