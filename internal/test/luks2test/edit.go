package luks2test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"testing"
)

// Edit changes the metadata of both copies of a header as whoever can write the disk
// can: nothing of it is checked, and the checksums are right afterwards.
func Edit(t testing.TB, path string, change func(metadata map[string]any)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const binaryPart, checksum, checksumSize = 4096, 448, 64
	first := make([]byte, 16)
	if _, err := f.ReadAt(first, 0); err != nil {
		t.Fatal(err)
	}
	size := int64(binary.BigEndian.Uint64(first[8:]))
	for _, at := range []int64{0, size} {
		b := make([]byte, size)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		text, _, _ := bytes.Cut(b[binaryPart:], []byte{0})
		text = edited(t, text, change)
		clear(b[binaryPart:])
		if copy(b[binaryPart:], text) < len(text) {
			t.Fatal("the metadata has become too long")
		}
		clear(b[checksum:][:checksumSize])
		sum := sha256.Sum256(b)
		copy(b[checksum:], sum[:])
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}

func edited(t testing.TB, text []byte, change func(map[string]any)) []byte {
	t.Helper()
	var metadata map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&metadata); err != nil {
		t.Fatal(err)
	}
	change(metadata)
	text, err := json.Marshal(metadata)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
