package luks2

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// crafted returns a Device with the base document, changed: path and value in turn.
func crafted(t *testing.T, changes ...string) *Device {
	t.Helper()
	c := newCraft(t, "base")
	for i := 0; i < len(changes); i += 2 {
		if err := c.doc.Set(json.RawMessage(changes[i+1]), strings.Split(changes[i], ".")...); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(c.write(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestKeyslotsThatCannotBeTried names the reason at once, for values that the
// rules let pass.
func TestKeyslotsThatCannotBeTried(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		slot        int
		path, value string
		want        string
	}{
		{0, "keyslots.0.key_size", `0`, "volume key of 0 bytes"},
		{0, "keyslots.0.key_size", `4294967295`, "volume key of 2147483647 bytes"},
		{0, "keyslots.0.key_size", `513`, "volume key of 513 bytes"},
		{0, "keyslots.0.key_size", `65`, "too small"},
		{0, "keyslots.0.af.hash", `"streebog512"`, `anti-forensic hash "streebog512"`},
		{0, "keyslots.0.area.encryption", `"nosuchcipher-xts-plain64"`, `cipher "nosuchcipher-xts-plain64"`},
		{0, "keyslots.0.area.encryption", `"cipher_null-ecb"`, `cipher "cipher_null-ecb"`},
		{0, "keyslots.0.area.key_size", `-1`, "key of -8 bits"},
		{0, "keyslots.0.kdf.hash", `"md5"`, `KDF hash "md5"`},
		{0, "keyslots.0.kdf.iterations", `0`, "out of range"},
		{0, "keyslots.0.kdf.iterations", `-5`, "out of range"},
		{0, "keyslots.0.kdf.iterations", `4294967295`, "iterations of 2147483647 is above the cap of 268435456"},
		{0, "keyslots.0.kdf.salt", `"AAAA"`, "salt of 3 bytes"},
		{0, "keyslots.0.kdf.salt", `"not base64"`, "salt of 0 bytes"},
		{1, "keyslots.1.kdf.memory", `15`, "out of range"},
		{1, "keyslots.1.kdf.memory", `4194305`, "memory of 4194305 KiB is above the cap"},
		{1, "keyslots.1.kdf.memory", `-1`, "out of range"},
		{1, "keyslots.1.kdf.time", `0`, "out of range"},
		{1, "keyslots.1.kdf.time", `2147483647`, "time of"},
		{1, "keyslots.1.kdf.cpus", `0`, "out of range"},
		{1, "keyslots.1.kdf.cpus", `65`, "lanes of 65"},
		{1, "keyslots.1.kdf.type", `"scrypt"`, `KDF "scrypt"`},
		{0, "keyslots.0.type", `"other"`, `type "other"`},
		{0, "digests.0.type", `"scrypt"`, `digest type "scrypt"`},
		{0, "digests.0.hash", `"streebog512"`, `digest hash "streebog512"`},
		{0, "digests.0.salt", `"AAAA"`, "digest salt of 3 bytes"},
		{0, "digests.0.salt", `""`, "digest salt of 0 bytes"},
		{0, "digests.0.digest", `""`, "digest of 0 bytes"},
		{0, "digests.0.digest", `"AAAA"`, "digest of 3 bytes"},
		{0, "digests.0.digest", `"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=!"`, "digest of 0 bytes"},
		{0, "digests.0.iterations", `0`, "out of range"},
		{0, "digests.0.iterations", `4000000000`, "iterations of"},
	} {
		t.Run(c.path+"="+c.value, func(t *testing.T) {
			t.Parallel()
			d := crafted(t, c.path, c.value)
			h, err := d.Header(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := h.KeyslotObstacle(c.slot); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("obstacle %v, want %s", err, c.want)
			}
			_, err = d.OpenKeyslot(t.Context(), c.slot, secret.Secret{})
			var none *NoKeyError
			if !errors.As(err, &none) || len(none.Skipped) != 1 || len(none.Tried) != 0 || errors.Is(err, ErrNoKey) {
				t.Errorf("opening: %v", err)
			}
		})
	}
}

// TestWhatIsNotComputedHereHasAHint names the modules of the kernel or a command.
func TestWhatIsNotComputedHereHasAHint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, value, hint string }{
		{"keyslots.0.area.encryption", `"nosuchcipher-xts-plain64"`, "modprobe -a algif_skcipher xts nosuchcipher"},
		{"keyslots.0.area.encryption", `"aes-xts-lmk"`, "--keyslot-cipher aes-xts-plain64"},
		{"keyslots.0.af.hash", `"streebog512"`, "luksAddKey --hash sha256 DEVICE"},
		{"keyslots.0.kdf.hash", `"md5"`, "luksAddKey --hash sha256 DEVICE"},
		{"digests.0.hash", `"streebog512"`, "reencrypt --hash sha256 DEVICE"},
	} {
		_, err := crafted(t, c.path, c.value).OpenKeyslot(t.Context(), AnySlot, secret.Secret{})
		e, ok := errors.AsType[*UnsupportedError](err)
		if !ok || !errors.Is(err, ErrUnsupported) || !strings.Contains(e.Hint(), c.hint) {
			t.Errorf("%s=%s: %v, %+v", c.path, c.value, err, e)
		}
	}
}

func TestCostsAreTypedErrors(t *testing.T) {
	t.Parallel()
	h, err := crafted(t, "keyslots.1.kdf.memory", "4194305").Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var cost *CostError
	if !errors.As(h.KeyslotObstacle(1), &cost) || cost.What != "memory" || cost.Limit != 4<<20 || cost.Machine || errors.Is(cost, ErrNoMemory) {
		t.Errorf("%+v", cost)
	}
	if h.KeyslotObstacle(0) != nil {
		t.Error("the other keyslot has an obstacle")
	}
	err = enoughMemory(math.MaxInt)
	if !errors.Is(err, ErrNoMemory) || !errors.As(err, &cost) || !cost.Machine {
		t.Errorf("all that can be named: %v", err)
	}
	if err := enoughMemory(1); err != nil {
		t.Errorf("a kibibyte: %v", err)
	}
}

// TestALackOfMemoryIsAnErrorOfTheKeyslot: the kernel refuses what /proc/meminfo
// says is there, as below a limit of the process.
func TestALackOfMemoryIsAnErrorOfTheKeyslot(t *testing.T) {
	d := crafted(t, "keyslots.1.kdf.memory", "4194304")
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	limited := old
	limited.Cur = 3 << 30 // Go's own reservations are below 2 GiB
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limited); err != nil {
		t.Fatal(err)
	}
	_, err := d.OpenKeyslot(t.Context(), 1, secret.Secret{})
	if err := unix.Setrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	var none *NoKeyError
	if !errors.Is(err, ErrNoMemory) || errors.Is(err, ErrNoKey) || !errors.As(err, &none) || none.Skipped[0].Slot != 1 {
		t.Errorf("4 GiB below a limit of 3: %v", err)
	}
}

// TestAnExpensiveKeyslotEndsWithTheContext is within the caps.
func TestAnExpensiveKeyslotEndsWithTheContext(t *testing.T) {
	t.Parallel()
	for slot, path := range []string{"keyslots.0.kdf.iterations", "keyslots.1.kdf.time"} {
		d := crafted(t, path, []string{"250000000", "15"}[slot])
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		_, err := d.OpenKeyslot(ctx, slot, secret.Secret{})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
			t.Errorf("slot %d: %v after %v", slot, err, time.Since(start))
		}
	}
}

// TestKeyslotsOfOtherKeys are not opened for the data.
func TestKeyslotsOfOtherKeys(t *testing.T) {
	t.Parallel()
	d := crafted(t, "digests.0.keyslots", `["0"]`, "digests.1",
		`{"type":"pbkdf2","keyslots":["1"],"segments":[],"hash":"sha256","iterations":1000,"salt":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=","digest":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}`)
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !h.OpensData(0) || h.OpensData(1) || h.OpensData(9) || h.KeyslotObstacle(1) == nil {
		t.Error("keyslot 1 counts as one of the data")
	}
	if got := h.PassphraseOrder(); !slices.Equal(got, []int{0}) {
		t.Errorf("order %v", got)
	}
	if _, err := d.OpenKeyslot(t.Context(), 9, secret.Secret{}); !errors.Is(err, ErrNoKeyslot) {
		t.Errorf("keyslot 9: %v", err)
	}
}

// TestPassphraseOrder has keyslots of all kinds; number 1 is Argon2id.
func TestPassphraseOrder(t *testing.T) {
	t.Parallel()
	const slot = `{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},` +
		`"area":{"type":"raw","offset":"OFFSET","size":"258048","encryption":"aes-xts-plain64","key_size":64},` +
		`"kdf":{"type":"pbkdf2","hash":"sha512","iterations":1000,"salt":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}}`
	var changes []string
	for i := 2; i <= 8; i++ {
		changes = append(changes, "keyslots."+name(i), strings.Replace(slot, "OFFSET", name(32768+i*258048), 1))
	}
	d := crafted(t, append(changes,
		"digests.0.keyslots", `["0","1","2","3","4","5","6","7","8"]`,
		"keyslots.3.priority", `2`, // preferred
		"keyslots.4.priority", `0`, // ignored
		"tokens", `{"0":{"type":"systemd-tpm2","keyslots":["1"]},"1":{"type":"systemd-fido2","keyslots":["2"]},`+
			`"2":{"type":"systemd-recovery","keyslots":["5"]},"3":{"type":"clevis","keyslots":["6"]},`+
			`"4":{"type":"systemd-pkcs11","keyslots":["6"]},"32":{"type":"systemd-pkcs11","keyslots":["7"]},"5":{"type":"luksmith","keyslots":[]},"6":{"type":"systemd-tpm2","keyslots":["8"]}}`,
		"keyslots.8.priority", `2`)...)
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// 3 is preferred; 0 has no token, 5 a recovery key, 6 also clevis, and 7 a token with a
	// number that no program gives; of the slots of devices only 8, preferred, and 2 are
	// cheap, 1 is not.
	if got, want := h.PassphraseOrder(), []int{3, 0, 5, 6, 7, 8, 2}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestRequirements(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mandatory       string
		write, activate bool // allowed
		reencryption    bool
	}{
		{`[]`, true, true, false},
		{`["inline-hw-tags"]`, true, false, false},
		{`["opal"]`, true, false, false},
		{`["something-new"]`, false, false, false},
		{`["offline-reencrypt"]`, false, false, true},
		{`["online-reencrypt-v9"]`, false, false, true},
		{`["Online-Reencrypt"]`, false, false, false},
	} {
		d := crafted(t, "config.requirements", `{"mandatory":`+c.mandatory+`}`)
		h, err := d.Header(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", c.mandatory, err)
		}
		write, activate := h.WriteObstacle(), h.ActivationObstacle()
		if (write == nil) != c.write || (activate == nil) != c.activate {
			t.Errorf("%s: writing %v, activating %v", c.mandatory, write, activate)
		}
		var requirement *RequirementError
		if activate != nil && (!errors.As(activate, &requirement) || requirement.Reencryption != c.reencryption || !errors.Is(activate, ErrRequirement)) {
			t.Errorf("%s: %v", c.mandatory, activate)
		}
		err = d.Update(t.Context(), func(tx *Tx) error { tx.Rewrite(); return nil })
		if (err == nil) != c.write || err != nil && !errors.Is(err, ErrRequirement) {
			t.Errorf("%s: Update: %v", c.mandatory, err)
		}
	}
}

// TestLeftoverMembersAreDropped when a header that has them is written, so that
// what is on the disk satisfies every rule.
func TestLeftoverMembersAreDropped(t *testing.T) {
	t.Parallel()
	d := crafted(t, "keyslots.0.kdf.memory", "5", "keyslots.1.kdf.hash", `"x"`)
	if err := d.Update(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if h, _ := d.Header(t.Context()); h.Keyslots[0].KDF.MemoryKiB != 5 {
		t.Error("an update without changes wrote")
	}
	if err := d.Update(t.Context(), func(tx *Tx) error { tx.Rewrite(); return nil }); err != nil {
		t.Fatal(err)
	}
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.Keyslots[0].KDF.MemoryKiB != 0 || h.Keyslots[1].KDF.Hash != "" || h.Keyslots[0].KDF.Iterations != 1000 {
		t.Errorf("%+v", h.Keyslots)
	}
}

// TestKeyAreaBetweenSectorsOpensAsInCryptsetup: no writer makes such a header.
func TestKeyAreaBetweenSectorsOpensAsInCryptsetup(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := newCrashVolume(t)
	image, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	changeCopies(image, func(c []byte) {
		copy(c[binarySize:], bytes.Replace(c[binarySize:], []byte(`"offset":"290816"`), []byte(`"offset":"290817"`), 1))
	})
	if err := os.WriteFile(v.path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	old := secret.Copy([]byte("old"))
	defer old.Wipe()
	key, err := v.d.OpenKeyslot(t.Context(), 1, old)
	if err != nil {
		t.Fatal(err)
	}
	key.Wipe()
	cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-slot=1", "--key-file=-", v.path)
	cmd.Stdin = strings.NewReader("old")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("cryptsetup does not open it: %v\n%s", err, out)
	}
}
