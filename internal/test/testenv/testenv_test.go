package testenv

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestImageUnpacksSparse(t *testing.T) {
	want := make([]byte, 1<<20)
	copy(want[300<<10:], "content")
	var packed bytes.Buffer
	z, _ := zstd.NewWriter(&packed)
	_, _ = z.Write(want)
	_ = z.Close()
	path := filepath.Join(t.TempDir(), "v.img.zst")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(Image(t, path))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
}
