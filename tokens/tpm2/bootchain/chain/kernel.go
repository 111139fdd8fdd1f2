package chain

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
)

// Kernels whose EFI stub was measured (uki/base, uki/kernel, uki262/kernel72). What
// lies between the first and the last is likely to do the same.
var measuredKernels = [...]series{{6, 1}, {6, 12}, {7, 2}}

// series is the part of a kernel's release that decides what it measures: 6.12.
type series struct{ major, minor int }

func seriesOf(release string) (series, bool) {
	major, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	a, err := strconv.Atoi(major)
	b, err2 := strconv.Atoi(rest[:end])
	return series{a, b}, err == nil && err2 == nil
}

func (s series) compare(t series) int {
	return cmp.Or(cmp.Compare(s.major, t.major), cmp.Compare(s.minor, t.minor))
}

// startKernel adds what the kernel's own EFI stub measures into PCR 9: its options,
// as UTF-16 with NUL, and the initrds as it got them (all chains but GRUB's).
func (r *run) startKernel(p *program, options string, initrds []part) {
	r.kernelSeries(p)
	if options == "" {
		r.unknown("a kernel without options was not measured", 9)
	}
	r.add(known(9, sha256.Sum256(utf16z(options)), "options", p.path))
	if len(initrds) == 0 {
		r.unknown("a kernel without initrd was not measured", 9)
		return
	}
	file := initrds[0].name
	if strings.HasPrefix(file, "section") {
		file = p.path
	}
	r.add(Measurement{9, "initrd", file, once(func() (Digest, error) { return joined(initrds) })})
}

// kernelSeries judges whether a kernel does what the measured ones do.
func (r *run) kernelSeries(p *program) {
	s, ok := seriesOf(p.version)
	running, alike := seriesOf(r.m.Kernel)
	switch {
	case !ok || s.compare(measuredKernels[0]) < 0:
		r.unknown(fmt.Sprintf("Linux %s: what its EFI stub measures was not compared with a TPM", p.version), 9)
	case alike && s == running:
		// The running boot shows what it does.
	case s.compare(measuredKernels[len(measuredKernels)-1]) > 0:
		r.unknown(fmt.Sprintf("Linux %s is newer than those that were compared with a TPM", p.version), 9)
	default:
		for _, m := range measuredKernels {
			if s == m {
				return
			}
		}
		r.likely(fmt.Sprintf("Linux %d.%d was not measured, an older and a newer one were", s.major, s.minor), 9)
	}
}
