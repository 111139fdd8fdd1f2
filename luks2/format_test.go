package luks2_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

func TestFormatDefaults(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	h := header(t, v.Device)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(h.UUID) {
		t.Errorf("UUID %q", h.UUID)
	}
	s, ok := h.DataSegment()
	if !ok || s.Type != "crypt" || s.Offset != 16<<20 || s.Size != 0 || s.Encryption != "aes-xts-plain64" || s.SectorSize != 512 {
		t.Errorf("segment %+v", s)
	}
	if h.Config.JSONSize != 12288 || h.Config.KeyslotsSize != 16744448 || h.Size != 16384 || h.Damaged() {
		t.Errorf("%+v", h)
	}
	sameJSON(t, v)
}

func TestFormatRefusesWhatIsInUse(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	o := &luks2.FormatOptions{Passphrase: text(t, "x"), KDF: luks2test.FastKDF}
	before := readFile(t, v.Path)
	if _, err := luks2.Format(t.Context(), v.Path, o); !errors.Is(err, luks2.ErrSignature) {
		t.Errorf("over a volume: %v", err)
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("the file changed")
	}
	create := *o
	create.CreateSize = 32 << 20
	if _, err := luks2.Format(t.Context(), v.Path, &create); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	writeAt(t, v.Path, make([]byte, 0x8000), 0)
	writeAt(t, v.Path, []byte("EFI PART"), 512)
	if _, err := luks2.Format(t.Context(), v.Path, o); !errors.Is(err, luks2.ErrSignature) || !strings.Contains(err.Error(), "GPT") {
		t.Errorf("over a partition table: %v", err)
	}
	o.Overwrite = true
	if _, err := luks2.Format(t.Context(), v.Path, o); err != nil {
		t.Errorf("with Overwrite: %v", err)
	}
}

// TestFormatLeavesNoOlderHeader: a larger header's secondary copy lies where the
// key areas of the new one are.
func TestFormatLeavesNoOlderHeader(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.HeaderSize = 1 << 20 }))
	_, err := luks2.Format(t.Context(), v.Path, &luks2.FormatOptions{Passphrase: text(t, "x"), KDF: luks2test.FastKDF, Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, v.Path, make([]byte, 4096), 0)      // both copies
	writeAt(t, v.Path, make([]byte, 4096), 0x4000) // of the new header
	d, err := luks2.Open(v.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Header(t.Context()); !errors.Is(err, luks2.ErrNotLUKS2) {
		t.Errorf("an older header is found: %v", err)
	}
}

func TestFormatChecksItsOptions(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*luks2.FormatOptions){
		"header size":   func(o *luks2.FormatOptions) { o.HeaderSize = 20 << 10 },
		"sector size":   func(o *luks2.FormatOptions) { o.SectorSize = 700 },
		"keyslots size": func(o *luks2.FormatOptions) { o.KeyslotsSize = 4097 },
		"no room":       func(o *luks2.FormatOptions) { o.KeyslotsSize = 16 << 20 },
		"small device":  func(o *luks2.FormatOptions) { o.CreateSize = 1 << 20 },
		"one keyslot":   func(o *luks2.FormatOptions) { o.KeyslotsSize = 4096 },
		"KDF":           func(o *luks2.FormatOptions) { o.KDF = luks2.KDF{} },
		"label":         func(o *luks2.FormatOptions) { o.Label = strings.Repeat("x", 48) },
		"encryption":    func(o *luks2.FormatOptions) { o.Encryption = "a\x00b" },
	} {
		o := &luks2.FormatOptions{Passphrase: text(t, "x"), KDF: luks2test.FastKDF, CreateSize: 32 << 20}
		change(o)
		path := filepath.Join(t.TempDir(), "volume.img")
		if _, err := luks2.Format(t.Context(), path, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: the file was made", name)
		}
	}
}

func TestFormatOfABlockDeviceFillsTheKeyAreas(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := loopDevice(t, path)
	o := &luks2.FormatOptions{Passphrase: text(t, "x"), KDF: luks2test.FastKDF, DataOffset: 1 << 20}
	d, err := luks2.Format(t.Context(), dev, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.OpenKeyslot(t.Context(), 0, o.Passphrase); err != nil {
		t.Fatal(err)
	}
	b := readFile(t, dev)
	if bytes.Contains(b[32<<10:1<<20], make([]byte, 64)) {
		t.Error("part of the key areas was not overwritten")
	}
	if len(bytes.Trim(b[1<<20:], "\x00")) != 0 {
		t.Error("the data area was written to")
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "second", luks2.Token{Type: "systemd-recovery"})
	file := filepath.Join(t.TempDir(), "backup")
	if err := v.Device.Backup(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Size() != 16<<20 {
		t.Errorf("mode %v, %d bytes", info.Mode(), info.Size())
	}
	if !bytes.Equal(readFile(t, file), readFile(t, v.Path)[:16<<20]) {
		t.Error("the backup differs from the header")
	}
	before := readFile(t, file)
	if err := v.Device.Backup(t.Context(), file); !errors.Is(err, fs.ErrExist) || !bytes.Equal(before, readFile(t, file)) {
		t.Errorf("over an existing file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := file + ".cancelled"
	if err := v.Device.Backup(ctx, other); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("an incomplete backup is left behind")
	}
}

// TestCryptsetupRestoresABackup after the header was destroyed.
func TestCryptsetupRestoresABackup(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := luks2test.New(t)
	file := filepath.Join(t.TempDir(), "backup")
	if err := v.Device.Backup(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	writeAt(t, v.Path, make([]byte, 1<<20), 0)
	testenv.Run(t, "cryptsetup", "luksHeaderRestore", "-q", "--header-backup-file", file, v.Path)
	if !v.Opens(t, v.Passphrase) {
		t.Error("the restored volume does not open")
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := luks2.Open(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := luks2.Open(dir, nil); !errors.Is(err, luks2.ErrNotLUKS2) {
		t.Errorf("folder: %v", err)
	}
	for name, content := range map[string][]byte{"empty": nil, "short": []byte("LUKS"), "zeros": make([]byte, 1<<20)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := luks2.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Header(t.Context()); !errors.Is(err, luks2.ErrNotLUKS2) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
