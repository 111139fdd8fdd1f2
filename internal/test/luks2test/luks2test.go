// Package luks2test makes small LUKS2 volumes for the tests of other packages,
// without cryptsetup: image files of 32 MiB, sparse, in the test's own folder.
package luks2test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// Volume is an image file with a LUKS2 volume on it.
type Volume struct {
	Path       string
	HeaderPath string // of a detached header, else ""
	Passphrase string // opens keyslot 0
	UUID       string
	VolumeKey  string // hexadecimal

	// Device is the volume, opened.
	Device *luks2.Device
}

// Passphrase is what opens keyslot 0 unless an option says otherwise.
const Passphrase = "hunter2"

// FastKDF makes a keyslot that costs a test nothing.
var FastKDF = luks2.KDF{Type: luks2.KDFPBKDF2, Hash: "sha256", Iterations: 1000}

// Option changes how the volume is made.
type Option func(*settings)

type settings struct {
	format     luks2.FormatOptions
	passphrase string
	detached   bool
	tokens     []luks2.Token
}

// WithFormat lets a test set any option of luks2.Format. The passphrase, the KDF
// and the volume key are set already.
func WithFormat(change func(*luks2.FormatOptions)) Option {
	return func(s *settings) { change(&s.format) }
}

// WithPassphrase sets the passphrase of keyslot 0.
func WithPassphrase(text string) Option { return func(s *settings) { s.passphrase = text } }

// WithLabel sets the label of the volume.
func WithLabel(label string) Option { return func(s *settings) { s.format.Label = label } }

// WithDetachedHeader puts the header into a file of its own.
func WithDetachedHeader() Option { return func(s *settings) { s.detached = true } }

// WithToken adds a token as it is; its Keyslots may name keyslot 0.
func WithToken(t luks2.Token) Option {
	return func(s *settings) { s.tokens = append(s.tokens, t) }
}

// imageSize is that of the image, or of the file with a detached header.
const imageSize = 32 << 20

// New makes a volume with one keyslot, PBKDF2 with 1000 iterations.
func New(t testing.TB, options ...Option) *Volume {
	t.Helper()
	s := &settings{passphrase: Passphrase}
	key := secret.Random(64)
	defer key.Wipe()
	s.format = luks2.FormatOptions{KDF: FastKDF, VolumeKey: key, CreateSize: imageSize}
	for _, o := range options {
		o(s)
	}
	passphrase := secret.Copy([]byte(s.passphrase))
	defer passphrase.Wipe()
	s.format.Passphrase = passphrase
	v := &Volume{
		Path: filepath.Join(t.TempDir(), "volume.img"), Passphrase: s.passphrase,
		VolumeKey: hex.EncodeToString(s.format.VolumeKey.Bytes()),
	}
	v.format(t, s)
	v.addTokens(t, s.tokens)
	h, err := v.Device.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.UUID = h.UUID
	return v
}

func (v *Volume) format(t testing.TB, s *settings) {
	t.Helper()
	if s.detached {
		v.HeaderPath = v.Path + ".header"
		s.format.Header = v.HeaderPath
		createFile(t, v.Path)
	}
	if _, err := luks2.Format(t.Context(), v.Path, &s.format); err != nil {
		t.Fatal(err)
	}
	d, err := luks2.Open(v.Path, &luks2.OpenOptions{Header: v.HeaderPath})
	if err != nil {
		t.Fatal(err)
	}
	v.Device = d
}

func (v *Volume) addTokens(t testing.TB, tokens []luks2.Token) {
	t.Helper()
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		for _, token := range tokens {
			if _, err := tx.AddToken(token); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Enroll adds a keyslot for a passphrase, as an enrolment does: with a token that
// names it, unless the token's Type is empty. It returns the number of the keyslot.
func (v *Volume) Enroll(t testing.TB, passphrase string, token luks2.Token) (slot int) {
	t.Helper()
	old, text := secret.Copy([]byte(v.Passphrase)), secret.Copy([]byte(passphrase))
	defer secret.WipeAll([]secret.Secret{old, text})
	key, err := v.Device.OpenKeyslot(t.Context(), luks2.AnySlot, old)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	err = v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		if slot, err = tx.AddKeyslot(key, text, luks2.MinimalKDF); err != nil || token.Type == "" {
			return err
		}
		token.Keyslots = []int{slot}
		_, err = tx.AddToken(token)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// Opens reports whether a passphrase opens the volume.
func (v *Volume) Opens(t testing.TB, passphrase string) bool {
	t.Helper()
	text := secret.Copy([]byte(passphrase))
	defer text.Wipe()
	key, err := v.Device.OpenKeyslot(t.Context(), luks2.AnySlot, text)
	if err != nil {
		return false
	}
	key.Wipe()
	return true
}

// createFile makes a sparse data file for a volume whose header is elsewhere.
func createFile(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(imageSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
