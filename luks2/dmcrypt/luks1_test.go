package dmcrypt

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/anatol/luks.go"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// formatLUKS1 makes a volume with cryptsetup, which the passphrase "zero" opens.
func formatLUKS1(t *testing.T, args ...string) string {
	t.Helper()
	testenv.Need(t, "cryptsetup")
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	for name, content := range map[string]string{"image": "", "zero": "zero"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(image, 8<<20); err != nil {
		t.Fatal(err)
	}
	fast := []string{"luksFormat", "--type", "luks1", "-q", "--pbkdf-force-iterations", "1000", "--key-file", filepath.Join(dir, "zero")}
	testenv.Run(t, "cryptsetup", slices.Concat(fast, args, []string{image})...)
	return image
}

// formatLUKS1Twice adds the passphrase "one" in slot 1.
func formatLUKS1Twice(t *testing.T, args ...string) string {
	t.Helper()
	image := formatLUKS1(t, args...)
	dir := filepath.Dir(image)
	if err := os.WriteFile(filepath.Join(dir, "one"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", "luksAddKey", "-q", "--pbkdf-force-iterations", "1000", "--key-file", filepath.Join(dir, "zero"), image, filepath.Join(dir, "one"))
	return image
}

func TestLUKS1KeysEqualCryptsetups(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		peer bool // luks.go can open it too
	}{
		{"default", nil, true},
		{"AES-128-XTS with SHA-512", []string{"--key-size", "256", "--hash", "sha512"}, true},
		{"old default", []string{"--cipher", "aes-cbc-essiv:sha256", "--key-size", "128", "--hash", "sha1"}, false},
		{"AES-256-CBC", []string{"--cipher", "aes-cbc-plain64", "--key-size", "256", "--hash", "sha1"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			image := formatLUKS1Twice(t, tt.args...)
			want := filepath.Join(t.TempDir(), "key")
			testenv.Run(t, "cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", want, "--key-file", filepath.Join(filepath.Dir(image), "one"), image)
			v, err := openLUKS1(t, image)
			if err != nil {
				t.Fatal(err)
			}
			one := secret.Copy([]byte("one"))
			defer one.Wipe()
			key, err := v.OpenKeyslot(t.Context(), luks2.AnySlot, one)
			if err != nil {
				t.Fatal(err)
			}
			defer key.Wipe()
			wantKey, err := os.ReadFile(want)
			if err != nil || !bytes.Equal(key.Key.Bytes(), wantKey) || key.Slot != 1 {
				t.Errorf("slot %d, a key of %d bytes, %v", key.Slot, key.Key.Len(), err)
			}
			if tt.peer {
				comparePeer(t, image, key)
			}
		})
	}
}

func openLUKS1(t *testing.T, path string) (*LUKS1Volume, error) {
	t.Helper()
	d, err := luks2.Open(path, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return OpenLUKS1(d)
}

// comparePeer asks luks.go, which keeps the key and gives an HMAC by it.
func comparePeer(t *testing.T, image string, key *luks2.VolumeKey) {
	t.Helper()
	d, err := luks.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	vol, err := d.UnsealVolume(key.Slot, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := vol.HMAC(crypto.SHA256, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key.Key.Bytes())
	mac.Write([]byte("message"))
	if !hmac.Equal(mac.Sum(nil), want) {
		t.Error("luks.go has another key")
	}
	v, err := openLUKS1(t, image)
	if err != nil {
		t.Fatal(err)
	}
	r := v.Request()
	if r.UUID != vol.UUID || r.Segment.Encryption != vol.StorageEncryption || r.Segment.Offset != vol.StorageOffset {
		t.Errorf("luks.go reads %s, %s, %d; ours %+v", vol.UUID, vol.StorageEncryption, vol.StorageOffset, r)
	}
}

func TestLUKS1WrongPassphraseAndSlots(t *testing.T) {
	t.Parallel()
	v, err := openLUKS1(t, formatLUKS1Twice(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Slots(); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("slots %v", got)
	}
	one := secret.Copy([]byte("one"))
	defer one.Wipe()
	for _, tt := range []struct {
		slot int
		want error
	}{{0, luks2.ErrNoKey}, {1, nil}, {2, luks2.ErrNoKeyslot}, {8, luks2.ErrNoKeyslot}, {-2, luks2.ErrNoKeyslot}} {
		key, err := v.OpenKeyslot(t.Context(), tt.slot, one)
		if !errors.Is(err, tt.want) {
			t.Errorf("slot %d: %v, want %v", tt.slot, err, tt.want)
		}
		if err == nil {
			key.Wipe()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.OpenKeyslot(ctx, luks2.AnySlot, one); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// luks1Header is a valid header without a key.
func luks1Header() []byte {
	b := make([]byte, luks1Size)
	copy(b, luks1Magic)
	copy(b[8:], "aes")
	copy(b[40:], "xts-plain64")
	copy(b[72:], "sha256")
	binary.BigEndian.PutUint32(b[104:], 4096)
	binary.BigEndian.PutUint32(b[108:], 64)
	binary.BigEndian.PutUint32(b[164:], 1000)
	copy(b[168:], testUUID)
	binary.BigEndian.PutUint32(b[208:], luks1SlotActive)
	binary.BigEndian.PutUint32(b[212:], 1000)
	binary.BigEndian.PutUint32(b[248:], 8)
	binary.BigEndian.PutUint32(b[252:], 4000)
	return b
}

func TestLUKS1HeaderIsNotTrusted(t *testing.T) {
	t.Parallel()
	pass := secret.Copy([]byte("one"))
	defer pass.Wipe()
	for _, tt := range []struct {
		name   string
		change func([]byte)
		want   string // in the error
	}{
		{"magic", func(b []byte) { b[0] = 'X' }, "not a LUKS1 volume"},
		{"version 2", func(b []byte) { b[7] = 2 }, "not a LUKS1 volume"},
		{"hash", func(b []byte) { copy(b[72:], "md5\x00") }, `hash "md5"`},
		{"no end of a text", func(b []byte) { copy(b[72:104], bytes.Repeat([]byte("x"), 32)) }, "hash"},
		{"key of 4 GiB", func(b []byte) { binary.BigEndian.PutUint32(b[108:], 1<<32-1) }, "volume key of 4294967295 bytes"},
		{"key of 4 bytes", func(b []byte) { binary.BigEndian.PutUint32(b[108:], 4) }, "volume key of 4 bytes"},
		{"UUID", func(b []byte) { copy(b[168:], "../../../../") }, "UUID"},
		{"cipher", func(b []byte) { copy(b[8:], "rot13") }, "rot13"},
		{"iterations of a slot", func(b []byte) { binary.BigEndian.PutUint32(b[212:], 1<<32-1) }, "above the cap"},
		{"no iterations", func(b []byte) { binary.BigEndian.PutUint32(b[212:], 0) }, "without iterations"},
		{"stripes", func(b []byte) { binary.BigEndian.PutUint32(b[252:], 1) }, "1 stripes"},
		{"key material beyond the end", func(b []byte) { binary.BigEndian.PutUint32(b[248:], 1<<32-1) }, "EOF"},
		{"iterations of the digest", func(b []byte) { binary.BigEndian.PutUint32(b[164:], 1<<32-1) }, "above the cap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := append(luks1Header(), make([]byte, 1<<20)...)
			tt.change(b)
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, b, 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := openLUKS1(t, image)
			if err == nil {
				_, err = v.OpenKeyslot(t.Context(), luks2.AnySlot, pass)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParseLUKS1(f *testing.F) {
	f.Add(luks1Header())
	f.Add([]byte(luks1Magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseLUKS1(b)
		if err != nil {
			return
		}
		r := v.Request()
		r.Name, r.Key = "vol", secret.New(16)
		defer r.Key.Wipe()
		m, err := r.validate()
		if err != nil {
			return
		}
		p := m.params(&source{}, 0)
		defer p.Wipe()
		if table, err := parseTable(p.Bytes()); err != nil || table.cipher != r.Segment.Encryption {
			t.Errorf("the header gives the table %q: %+v, %v", p.Bytes(), table, err)
		}
	})
}
