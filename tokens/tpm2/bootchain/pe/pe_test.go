package pe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/test/petest"
)

func parse(t testing.TB, b []byte) *Image {
	t.Helper()
	m, err := New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func digest(t testing.TB, m *Image) []byte {
	t.Helper()
	h := sha256.New()
	if err := m.Authenticode(h); err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}

// TestDigestIsTheOneThatWasSigned: the signature of a program holds its Authenticode
// digest. Debian's kernel is signed.
func TestDigestIsTheOneThatWasSigned(t *testing.T) {
	t.Parallel()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("not applicable here: no cache folder")
	}
	names, _ := filepath.Glob(filepath.Join(cache, "luksmith", "kernel", "boot", "vmlinuz-*"))
	if len(names) == 0 {
		t.Skip("missing: Debian's kernel, which .ci/install-deps unpacks")
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	m := parse(t, b)
	table := b[m.certificate.start:]
	if d := digest(t, m); len(table) == 0 || !bytes.Contains(table, d) {
		t.Errorf("the signature of %s is not about %x", names[0], d)
	}
	if s, err := m.Signers(); err != nil || len(s) != 1 || s[0].Serial == "" {
		t.Errorf("signers %v, %v", s, err)
	}
}

// sign appends a certificate table, as signing does.
func sign(b []byte, table []byte) []byte {
	b = bytes.Clone(b)
	entry := 0x80 + 24 + 112 + 8*directoryOfCerts
	binary.LittleEndian.PutUint32(b[entry:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[entry+4:], uint32(len(table)))
	return append(b, table...)
}

func TestSigningLeavesTheDigest(t *testing.T) {
	t.Parallel()
	plain := petest.Kernel("6.12.1")
	signed := sign(plain, bytes.Repeat([]byte{7}, 64))
	binary.LittleEndian.PutUint32(signed[0x80+24+offsetChecksum:], 4711) // the checksum is left out too
	if a, b := digest(t, parse(t, plain)), digest(t, parse(t, signed)); !bytes.Equal(a, b) {
		t.Errorf("%x without a signature, %x with one", a, b)
	}
	other := bytes.Clone(plain)
	other[len(other)-1] ^= 1
	if bytes.Equal(digest(t, parse(t, plain)), digest(t, parse(t, other))) {
		t.Error("a changed byte of a section does not change the digest")
	}
}

func TestSectionsAreAsInMemory(t *testing.T) {
	t.Parallel()
	b := petest.Build(petest.Section{Name: ".cmdline", Data: []byte("quiet")}, petest.Section{Name: ".longname", Data: []byte("x")})
	binary.LittleEndian.PutUint32(b[0x80+24+112+128+8:], 700) // more than the 512 bytes in the file
	m := parse(t, b)
	s, ok := m.Section(".cmdline")
	if !ok || s.Size != 700 {
		t.Fatalf("section %v, %v", s, ok)
	}
	content, err := io.ReadAll(s.Open())
	if err != nil || len(content) != 700 || !bytes.Equal(bytes.TrimRight(content, "\x00"), []byte("quiet")) {
		t.Errorf("%q, %v", content, err)
	}
	if m.Sections[1].Name != ".longnam" {
		t.Errorf("name %q", m.Sections[1].Name)
	}
}

func TestDamagedImagesAreRefused(t *testing.T) {
	t.Parallel()
	whole := petest.Image("257", petest.Kernel("6.1.0"), []byte("initrd"), "quiet")
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"empty": nil, "no PE": []byte("MZ"), "cut short": whole[:len(whole)-600],
		"header behind the file": put(0x3c, 1<<30), "headers of 4 GiB": put(0x80+24+60, 1<<32-1), "no headers": put(0x80+24+60, 0),
		"65535 sections": put(0x80+6, 0xffff), "200 directories": put(0x80+24+108, 200),
		"certificates in the middle": put(0x80+24+112+32+4, 8), "section of 4 GiB": put(0x80+24+112+128+8, 1<<32-1),
		"other magic": put(0x80+24, 0x107),
	} {
		if _, err := New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHalfOfAnImageIsCalledThat: it is the one damage that people can do something about.
func TestHalfOfAnImageIsCalledThat(t *testing.T) {
	t.Parallel()
	whole := petest.Image("257", petest.Kernel("6.1.0"), []byte("initrd"), "quiet")
	signed := sign(petest.Loader("257"), []byte("\x10\x00\x00\x00\x00\x02\x02\x00\x30\x06\x06\x01\x00\xa0\x01\x00"))
	for name, b := range map[string][]byte{"image": whole[:len(whole)/2], "signed": signed[:len(signed)-8]} {
		if _, err := New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, errCut) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add(petest.Kernel("6.1.0"))
	f.Add(sign(petest.Loader("257"), []byte("\x10\x00\x00\x00\x00\x02\x02\x00\x30\x06\x06\x01\x00\xa0\x01\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := New(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		_ = m.Authenticode(sha256.New())
		_, _ = m.Signers()
		for _, s := range m.Sections {
			if s.Size < 1<<20 {
				_, _ = io.Copy(io.Discard, s.Open())
			}
		}
	})
}
