package luks2_test

import (
	"encoding/hex"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// TestGuestKeyAreasInOtherCiphers has cryptsetup make volumes whose key areas are in
// ciphers of the kernel, and both sides open the keyslots of the other. It needs a
// kernel with its crypto API for programs: the guest of e2e.
func TestGuestKeyAreasInOtherCiphers(t *testing.T) {
	testenv.NeedGuest(t)
	for _, c := range []struct {
		cipher string
		bits   string
	}{
		{"serpent-xts-plain64", "512"}, {"serpent-lrw-benbi", "384"}, {"twofish-xts-plain64", "512"}, {"camellia-cbc-essiv:sha256", "256"},
		{"xchacha12,aes-adiantum-plain64", "256"}, {"aes-lrw-plain64", "256"}, {"aes-ctr-plain64", "256"}, {"blowfish-cbc-plain64", "128"},
	} {
		t.Run(c.cipher, func(t *testing.T) {
			v := cryptsetupFormat(t, []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--cipher", c.cipher, "--key-size", c.bits})
			if k, _ := header(t, v.Device).Keyslot(0); k.Area.Encryption != c.cipher {
				t.Fatalf("cryptsetup encrypted the area with %s", k.Area.Encryption)
			}
			key := unlocked(t, v.Device, v.Passphrase)
			if got := hex.EncodeToString(key.Key.Bytes()); got != dumpedVolumeKey(t, v) {
				t.Fatal("the volume key is not the one that cryptsetup dumps")
			}
			v.Enroll(t, "ours", luks2.Token{Type: "systemd-recovery"})
			if !cryptsetupOpens(t, v.Path, "ours", 1) {
				t.Error("cryptsetup does not open our keyslot")
			}
		})
	}
}
