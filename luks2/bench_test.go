package luks2_test

import (
	"context"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// BenchmarkHeader is what listing a volume costs the library.
func BenchmarkHeader(b *testing.B) {
	v := luks2test.New(b)
	for range 4 {
		v.Enroll(b, "x", luks2.Token{Type: "systemd-tpm2"})
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := luks2.Open(v.Path, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Header(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenKeyslot is a keyslot with PBKDF2 of 1000 iterations, from opening
// the device to the volume key; "wrong" is a passphrase that does not fit.
func BenchmarkOpenKeyslot(b *testing.B) {
	v := luks2test.New(b)
	for name, passphrase := range map[string]string{"right": v.Passphrase, "wrong": "wrong"} {
		b.Run(name, func(b *testing.B) {
			text := secret.Copy([]byte(passphrase))
			defer text.Wipe()
			b.ReportAllocs()
			for b.Loop() {
				if key, err := v.Device.OpenKeyslot(context.Background(), luks2.AnySlot, text); err == nil {
					key.Wipe()
				}
			}
		})
	}
}

// BenchmarkEnrol is one update with a keyslot and a token, and one that removes
// them, with all their fsyncs.
func BenchmarkEnroll(b *testing.B) {
	v := luks2test.New(b)
	for b.Loop() {
		slot := v.Enroll(b, "second", luks2.Token{Type: "systemd-recovery"})
		err := v.Device.Update(context.Background(), func(tx *luks2.Tx) error {
			if err := tx.RemoveToken(0); err != nil {
				return err
			}
			return tx.RemoveKeyslot(slot)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
