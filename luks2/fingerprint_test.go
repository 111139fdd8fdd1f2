package luks2_test

import (
	"os/exec"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// conditionsMAC opens a volume and authenticates a text with its key.
func conditionsMAC(t *testing.T, path, passphrase string) (mac [32]byte, fingerprint luks2.KeyFingerprint) {
	t.Helper()
	d, err := luks2.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := secret.Copy([]byte(passphrase))
	defer text.Wipe()
	key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, text)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.KeyFingerprint() != key.Fingerprint() {
		t.Error("header and opened key name the key in two ways")
	}
	return key.ConditionsMAC([]byte("conditions")), key.Fingerprint()
}

// TestTheConditionsMACBelongsToTheVolumeKey and not to the keyslot that opened:
// cryptsetup's changes of keyslots leave it as it is, another volume has another.
func TestTheConditionsMACBelongsToTheVolumeKey(t *testing.T) {
	testenv.Need(t, "cryptsetup")
	t.Parallel()
	v, other := luks2test.New(t), luks2test.New(t)
	v.Enroll(t, "second", luks2.Token{})
	mac, fingerprint := conditionsMAC(t, v.Path, luks2test.Passphrase)
	same := func(when, passphrase string) {
		t.Helper()
		if m, f := conditionsMAC(t, v.Path, passphrase); m != mac || f != fingerprint {
			t.Errorf("%s: another MAC or fingerprint", when)
		}
	}
	same("second keyslot", "second")
	if m, f := conditionsMAC(t, other.Path, luks2test.Passphrase); m == mac || f == fingerprint {
		t.Error("two volumes share MAC or fingerprint")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("cryptsetup", args...).CombinedOutput(); err != nil {
			t.Fatalf("cryptsetup %v: %v\n%s", args, err, out)
		}
	}
	run("luksChangeKey", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", keyFile(t, "second"), v.Path, keyFile(t, "third"))
	same("luksChangeKey", "third")
	run("luksUUID", "--batch-mode", "--uuid", other.UUID, v.Path)
	if m, f := conditionsMAC(t, v.Path, "third"); m == mac || f == fingerprint {
		t.Error("luksUUID: a MAC that no longer fits is taken for one of this volume")
	}
}
