package e2e

import (
	"bytes"
	"fmt"
	"path"
)

// archive is an initramfs in the making: a cpio archive of format "newc"
// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux), in which
// folders come before what they hold.
type archive struct {
	buf  bytes.Buffer
	have map[string]bool // folders and links
	ino  int
}

func newArchive() *archive { return &archive{have: map[string]bool{}} }

// File types of stat(2), as a cpio header has them.
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeLink    = 0o120000
)

// file adds a regular file, parents included. Paths are relative to the root. The
// kernel lets a later file of the same name replace an earlier one.
func (a *archive) file(name string, perm int, data []byte) {
	a.parents(name)
	a.entry(name, modeRegular|perm, data)
}

// link adds a symbolic link.
func (a *archive) link(name, target string) {
	if a.have[name] {
		return
	}
	a.have[name] = true
	a.parents(name)
	a.entry(name, modeLink|0o777, []byte(target))
}

// dir adds a folder and its parents.
func (a *archive) dir(name string) {
	if name == "." || name == "/" || a.have[name] {
		return
	}
	a.have[name] = true
	a.parents(name)
	a.entry(name, modeDir|0o755, nil)
}

func (a *archive) parents(name string) { a.dir(path.Dir(name)) }

func (a *archive) entry(name string, mode int, data []byte) {
	a.ino++
	links := 1
	if mode&modeDir != 0 {
		links = 2
	}
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.align(4)
	a.buf.Write(data)
	a.align(4)
}

func (a *archive) align(n int) {
	for a.buf.Len()%n != 0 {
		a.buf.WriteByte(0)
	}
}

// bytes ends the archive and returns it. Several may follow each other.
func (a *archive) bytes() []byte {
	a.entry("TRAILER!!!", 0, nil)
	a.align(512)
	return a.buf.Bytes()
}
