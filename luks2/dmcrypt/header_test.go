package dmcrypt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

func TestFromHeader(t *testing.T) {
	t.Parallel()
	data := luks2.Segment{ID: 0, Type: "crypt", Offset: 1 << 24, Size: 1 << 20, Encryption: "aes-xts-plain64", SectorSize: 4096, IVTweak: 8}
	valid := func() *luks2.Header {
		return &luks2.Header{
			UUID: testUUID, Segments: []luks2.Segment{data}, Digests: []luks2.Digest{{ID: 0}, {ID: 3, Segments: []int{0}}},
			Config: luks2.Config{Flags: []string{"allow-discards", "future"}},
		}
	}
	got, err := FromHeader(valid())
	want := &Request{
		Type: LUKS2, UUID: testUUID, Digest: 3, Flags: AllowDiscards,
		Segment: Segment{Offset: 1 << 24, Size: 1 << 20, Encryption: "aes-xts-plain64", SectorSize: 4096, IVTweak: 8},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(secret.Secret{})); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for name, change := range map[string]func(*luks2.Header){
		"integrity":    func(h *luks2.Header) { h.Segments[0].Integrity = &luks2.Integrity{Type: "aead"} },
		"two segments": func(h *luks2.Header) { h.Segments = append(h.Segments, luks2.Segment{ID: 1, Type: "crypt"}) },
		"no segment":   func(h *luks2.Header) { h.Segments = nil },
		"linear":       func(h *luks2.Header) { h.Segments[0].Type = "linear" },
		"OPAL":         func(h *luks2.Header) { h.Segments[0].Type = "hw-opal-crypt" },
		"no digest":    func(h *luks2.Header) { h.Digests = h.Digests[:1] },
	} {
		h := valid()
		change(h)
		if r, err := FromHeader(h); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestFromHeaderRefusesReencryptionInFlight(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := luks2test.New(t)
	passphrase := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(passphrase, []byte(v.Passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", "reencrypt", "--init-only", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", passphrase, v.Path)
	h, err := v.Device.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var requirement *luks2.RequirementError
	if r, err := FromHeader(h); !errors.Is(err, ErrUnsupported) || !errors.As(err, &requirement) || !requirement.Reencryption {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestGuestFromHeaderToMapping goes all the way from a passphrase to a mapping.
func TestGuestFromHeaderToMapping(t *testing.T) {
	testenv.NeedGuest(t)
	testenv.Run(t, "modprobe", "loop") // cryptsetup does not load it
	luks1 := formatLUKS1(t)
	for _, tt := range []struct {
		name, image, passphrase string
		request                 func(t *testing.T, path string, passphrase secret.Secret) (*Request, *luks2.VolumeKey, error)
	}{
		{"LUKS2", luks2test.New(t).Path, luks2test.Passphrase, func(t *testing.T, path string, passphrase secret.Secret) (*Request, *luks2.VolumeKey, error) {
			d, err := luks2.Open(path, nil)
			if err != nil {
				return nil, nil, err
			}
			h, err := d.Header(t.Context())
			if err != nil {
				return nil, nil, err
			}
			key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
			if err != nil {
				return nil, nil, err
			}
			r, err := FromHeader(h)
			return r, key, err
		}},
		{"LUKS1", luks1, "zero", func(t *testing.T, path string, passphrase secret.Secret) (*Request, *luks2.VolumeKey, error) {
			v, err := openLUKS1(t, path)
			if err != nil {
				return nil, nil, err
			}
			key, err := v.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
			return v.Request(), key, err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keyFile := filepath.Join(t.TempDir(), "passphrase")
			if err := os.WriteFile(keyFile, []byte(tt.passphrase), 0o600); err != nil {
				t.Fatal(err)
			}
			testenv.Run(t, "cryptsetup", "open", "--key-file", keyFile, tt.image, "vol")
			want := seen(t)
			closeOther(t, "vol")
			nothingMapped(t) // also waits for the loop device, so that ours gets the same number
			passphrase := secret.Copy([]byte(tt.passphrase))
			defer passphrase.Wipe()
			r, key, err := tt.request(t, tt.image, passphrase)
			if err != nil {
				t.Fatal(err)
			}
			defer key.Wipe()
			r.Name, r.Device, r.Key = "vol", tt.image, key.Key
			attach(t, r)
			if got := seen(t); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
