package chain

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"

	"luksmith/tokens/tpm2/bootchain/pe"
)

// part is a piece of the initrd that the kernel gets.
type part struct {
	name string
	File
}

func (p part) digest() (Digest, error) { return digestOf(p.File) }

// memory is a File in memory.
type memory []byte

func (m memory) Size() int64                { return int64(len(m)) }
func (m memory) Head(n int) ([]byte, error) { return m[:min(n, len(m))], nil }
func (m memory) Hash(h hash.Hash) error     { h.Write(m); return nil }
func (m memory) Program() (Program, error)  { return nil, pe.ErrFormat }

// archive is a kind of cpio archive that the stub makes: of a folder, with the
// modes of folder and files (systemd src/boot/cpio.c; /.extra of a booted image:
// uki262x).
type archive struct {
	folder               string
	folderMode, fileMode int
}

var (
	extraArchive      = archive{".extra", 0o555, 0o444}
	secretArchive     = archive{".extra", 0o555, 0o400}
	credentialArchive = archive{".extra/credentials", 0o500, 0o400}
	globalArchive     = archive{".extra/global_credentials", 0o500, 0o400}
	sysextArchive     = archive{".extra/sysext", 0o555, 0o444}
	confextArchive    = archive{".extra/confext", 0o555, 0o444}
)

const (
	modeFolder = 0o040000
	modeFile   = 0o100000
)

// of makes an archive of files. Its inodes count from 1: the folders on the way,
// then the files.
func (a archive) of(files []sidecar) part {
	p := &packed{}
	inode := 0
	record := func(mode int, name string, content File) {
		inode++
		p.entries = append(p.entries, packedFile{cpioHeader(inode, mode, name, content.Size()), content})
	}
	for i := range a.folder + "/" {
		if (a.folder + "/")[i] != '/' {
			continue
		}
		mode := 0o555
		if i == len(a.folder) {
			mode = a.folderMode
		}
		record(modeFolder|mode, a.folder[:i], memory(nil))
	}
	for _, f := range files {
		record(modeFile|a.fileMode, a.folder+"/"+f.name, f.File)
	}
	p.entries = append(p.entries, packedFile{[]byte(trailer), memory(nil)})
	return part{a.folder, p}
}

// trailer ends an archive, as systemd writes it.
const (
	zero    = "00000000"
	trailer = "070701" + zero + zero + zero + zero + "00000001" + zero + zero + zero + zero + zero + zero + "0000000B" + zero + "TRAILER!!!\x00\x00\x00\x00"
)

// cpioHeader is a record of the format newc, padded, with one link and no owner
// (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
func cpioHeader(inode, mode int, name string, size int64) []byte {
	var b bytes.Buffer
	b.WriteString("070701")
	for _, v := range []int64{int64(inode), int64(mode), 0, 0, 1, 0, size, 0, 0, 0, 0, int64(len(name) + 1), 0} {
		fmt.Fprintf(&b, "%08x", v)
	}
	b.WriteString(name + "\x00")
	b.Write(padding(int64(b.Len())))
	return b.Bytes()
}

// padding is what brings a size to a multiple of 4.
func padding(size int64) []byte { return make([]byte, -size&3) }

type packedFile struct {
	header  []byte
	content File
}

// packed is an archive as a File.
type packed struct{ entries []packedFile }

func (p *packed) Size() int64 {
	var n int64
	for _, e := range p.entries {
		n += int64(len(e.header)) + e.content.Size() + int64(len(padding(e.content.Size())))
	}
	return n
}

func (p *packed) Hash(h hash.Hash) error {
	for _, e := range p.entries {
		h.Write(e.header)
		if err := e.content.Hash(h); err != nil {
			return err
		}
		h.Write(padding(e.content.Size()))
	}
	return nil
}

func (p *packed) Head(int) ([]byte, error)  { return nil, pe.ErrFormat }
func (p *packed) Program() (Program, error) { return nil, pe.ErrFormat }

// joined are the initrds as the kernel gets them: one after the other, each padded
// to 4 but the last.
func joined(parts []part) (d Digest, err error) {
	if len(parts) == 1 {
		return parts[0].digest()
	}
	h := sha256.New()
	for i, p := range parts {
		if err := p.Hash(h); err != nil {
			return d, fmt.Errorf("%s: %w", p.name, err)
		}
		if i < len(parts)-1 {
			h.Write(padding(p.Size()))
		}
	}
	h.Sum(d[:0])
	return d, nil
}
