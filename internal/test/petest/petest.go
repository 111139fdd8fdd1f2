// Package petest builds small PE images: stand-ins for boot loaders, kernels and
// unified kernel images.
package petest

import (
	"encoding/binary"
	"strings"
)

// Section is a section of an image to build.
type Section struct {
	Name string
	Data []byte
}

const (
	headerAt  = 0x80
	optional  = 112 + 16*8 // PE32+ with all data directories
	alignment = 512
)

// Build makes an image of sections, each padded to 512 bytes in the file.
func Build(sections ...Section) []byte {
	table := headerAt + 24 + optional
	headers := align(table + 40*len(sections))
	b := make([]byte, headers)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], headerAt)
	copy(b[headerAt:], "PE\x00\x00\x64\x86")
	le.PutUint16(b[headerAt+6:], uint16(len(sections)))
	le.PutUint16(b[headerAt+20:], optional)
	o := headerAt + 24
	le.PutUint16(b[o:], 0x20b)
	le.PutUint32(b[o+60:], uint32(headers))
	le.PutUint32(b[o+108:], 16)
	for i, s := range sections {
		h := b[table+40*i:]
		copy(h[:8], s.Name)
		le.PutUint32(h[8:], uint32(len(s.Data)))
		le.PutUint32(h[16:], uint32(align(len(s.Data))))
		le.PutUint32(h[20:], uint32(len(b)))
		b = append(b, s.Data...)
		b = append(b, make([]byte, align(len(b))-len(b))...)
	}
	return b
}

func align(n int) int { return (n + alignment - 1) / alignment * alignment }

// Loader is a systemd-boot of a version.
func Loader(version string) []byte {
	return Build(Section{".text", []byte("loader " + version)}, Section{".sdmagic", []byte("#### LoaderInfo: systemd-boot " + version + " ####")})
}

// Kernel is a Linux kernel for x86 with a release.
func Kernel(release string) []byte {
	b := Build(Section{".text", []byte(strings.Repeat("kernel "+release+"\n", 100))})
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x300)
	copy(b[0x500:], release+" (builder) #1\x00")
	return b
}

// Image is a unified kernel image with a stub of a version.
func Image(stub string, kernel, initrd []byte, cmdline string) []byte {
	return Build(Section{".text", []byte("stub " + stub)}, Section{".sdmagic", []byte("#### LoaderInfo: systemd-stub " + stub + " ####")},
		Section{".osrel", []byte("ID=lab\nVERSION_ID=1\n")}, Section{".cmdline", []byte(cmdline)}, Section{".initrd", initrd}, Section{".linux", kernel})
}
