package luks2

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"luksmith/luks2/internal/jsondoc"
)

// craft is a header put together by hand.
type craft struct {
	doc        *jsondoc.Doc
	text       string // instead of the document, if not ""
	behind     string // the text
	size       uint64 // of a copy
	deviceSize int64
	before     map[int]string // bytes of each copy, before its checksum is computed
	after      map[int]string // bytes of each copy, after that
	secondary  uint64         // place of the only copy; 0: both stand where they should
}

func newCraft(t testing.TB, base string) *craft {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/rules", base+".json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsondoc.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return &craft{doc: doc, size: minHeaderSize, deviceSize: 160 << 20, before: map[int]string{}, after: map[int]string{}}
}

// copy makes one copy.
func (c *craft) copy(index int, at uint64) []byte {
	h := &headerCopy{index: index, at: at}
	area := make([]byte, c.size-binarySize)
	text := c.text
	if text == "" {
		text = string(c.doc.Bytes())
	}
	copy(area, text+c.behind)
	bin := newBase(&FormatOptions{HeaderSize: int(c.size), UUID: "7ea2e1b8-0000-4000-8000-000000000001"}, c.doc, 0).chosen.bin
	copy(bin[offMagic:], h.wantMagic())
	copy(bin[offHdrOffset:], bigEndian(at))
	copy(bin[offSeqID:], bigEndian(3))
	copy(bin[offSalt:], strconv.Itoa(index))
	b := append(bin, area...)
	patch(b, c.before)
	binaryHeader(b[:binarySize]).seal(b[binarySize:])
	patch(b, c.after)
	return b
}

func bigEndian(n uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return b
}

func patch(b []byte, changes map[int]string) {
	for at, s := range changes {
		copy(b[at:], s)
	}
}

// write makes an image file of it.
func (c *craft) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume.img")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(c.deviceSize); err != nil {
		t.Fatal(err)
	}
	places := []uint64{0, c.size}
	if c.secondary != 0 {
		places[1] = c.secondary
	}
	for i, at := range places {
		if i == 0 && c.secondary != 0 {
			continue
		}
		if _, err := f.WriteAt(c.copy(i, at), int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
