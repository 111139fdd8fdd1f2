package luks2_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	luksgo "github.com/anatol/luks.go"
	"github.com/google/go-cmp/cmp"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// keyFile writes a passphrase for cryptsetup.
func keyFile(t *testing.T, passphrase string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// cryptsetupOpens asks cryptsetup whether a passphrase opens a keyslot.
func cryptsetupOpens(t *testing.T, path, passphrase string, slot int) bool {
	t.Helper()
	cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens",
		"--key-slot", fmt.Sprint(slot), "--key-file", keyFile(t, passphrase), path)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != 2 {
		t.Fatalf("%v\n%s", cmd, out)
	}
	return err == nil
}

// cryptsetupVolumes are ways to make a volume: every cipher for key areas, KDF,
// hash and header size that cryptsetup can make and this package computes.
func cryptsetupVolumes() map[string][]string {
	const fast = "--pbkdf-force-iterations"
	list := map[string][]string{
		"argon2i":  {"--pbkdf", "argon2i", "--pbkdf-memory", "1024", fast, "4", "--pbkdf-parallel", "2"},
		"argon2id": {"--pbkdf", "argon2id", "--pbkdf-memory", "1024", fast, "4", "--pbkdf-parallel", "3"},
		// Costs that do not divide evenly, the least and the middling ones.
		"argon2i-32":     {"--pbkdf", "argon2i", "--pbkdf-memory", "32", fast, "4", "--pbkdf-parallel", "4"},
		"argon2i-4099":   {"--pbkdf", "argon2i", "--pbkdf-memory", "4099", fast, "5", "--pbkdf-parallel", "1"},
		"argon2id-32":    {"--pbkdf", "argon2id", "--pbkdf-memory", "32", fast, "4", "--pbkdf-parallel", "1"},
		"argon2id-2047":  {"--pbkdf", "argon2id", "--pbkdf-memory", "2047", fast, "7", "--pbkdf-parallel", "4"},
		"argon2id-65536": {"--pbkdf", "argon2id", "--pbkdf-memory", "65536", fast, "4", "--pbkdf-parallel", "2"},
	}
	// The last ones are written to the header as they are typed.
	for _, hash := range []string{"sha1", "sha224", "sha256", "sha384", "sha512", "SHA512", "Sha-256",
		"sha3-224", "sha3-256", "sha3-384", "sha3-512", "sha512-256", "sha2-256", "whirlpool", "ripemd160", "RIPEMD-160",
		"blake2b-512", "blake2s-256", "sm3"} {
		list["pbkdf2-"+hash] = []string{"--pbkdf", "pbkdf2", fast, "1000", "--hash", hash}
	}
	pbkdf2 := list["pbkdf2-sha256"]
	for _, c := range []struct {
		cipher string
		bits   string
	}{
		{"aes-xts-plain64", "256"}, {"aes-xts-plain64", "512"}, {"aes-xts-plain", "512"}, {"aes-cbc-essiv:sha256", "128"},
		{"aes-cbc-essiv:sha256", "256"}, {"aes-cbc-plain64", "256"}, {"aes-cbc-plain", "192"},
		{"aes-xts-essiv:sha256", "256"}, {"aes-xts-plain64be", "512"}, {"aes-cbc-benbi", "256"}, {"aes-cbc-eboiv", "256"}, {"aes-cbc-null", "128"},
		{"aes-cbc-essiv:sm3", "256"}, {"aes-ecb", "256"},
	} {
		list[c.cipher+"-"+c.bits] = append([]string{"--cipher", c.cipher, "--key-size", c.bits}, pbkdf2...)
	}
	for size := 16; size <= 4096; size *= 2 {
		list[fmt.Sprintf("%dk", size)] = append([]string{"--luks2-metadata-size", fmt.Sprintf("%dk", size)}, pbkdf2...)
	}
	return list
}

// TestBothDirectionsWithCryptsetup lets cryptsetup make a volume, and cryptsetup,
// this package and luks.go add and open keyslots on it.
func TestBothDirectionsWithCryptsetup(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	for name, options := range cryptsetupVolumes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := cryptsetupFormat(t, options)
			key := unlocked(t, v.Device, v.Passphrase)
			if got := hex.EncodeToString(key.Key.Bytes()); got != dumpedVolumeKey(t, v) {
				t.Fatal("the volume key is not the one that cryptsetup dumps")
			}
			v.Enroll(t, "ours", luks2.Token{Type: "systemd-recovery"})
			if !cryptsetupOpens(t, v.Path, "ours", 1) {
				t.Error("cryptsetup does not open our keyslot")
			}
			if key.Key.Len() != 24 && luksgoKnows(name) { // it wants stripes in whole sectors
				luksgoOpens(t, v.Path, 1, "ours")
			}
			testenv.Run(t, "cryptsetup", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
				"--key-file", keyFile(t, "ours"), v.Path, keyFile(t, "theirs"))
			if third := unlocked(t, v.Device, "theirs"); third.Slot != 2 || !third.Key.Equal(key.Key) {
				t.Errorf("cryptsetup's keyslot: %d", third.Slot)
			}
			update(t, v.Device, func(tx *luks2.Tx) error { return tx.RemoveKeyslot(0) })
			if !cryptsetupOpens(t, v.Path, "ours", 1) || !cryptsetupOpens(t, v.Path, "theirs", 2) {
				t.Error("cryptsetup does not open what is left")
			}
			sameJSON(t, v)
		})
	}
}

// luksgoKnows reports whether luks.go computes the hash and the cipher of a volume:
// it takes names in lower case only.
func luksgoKnows(name string) bool {
	return name == strings.ToLower(name) && !slices.ContainsFunc([]string{"sha512-256", "sha2-", "sm3", "-xts-essiv", "plain64be", "benbi", "eboiv", "null", "ecb"},
		func(part string) bool { return strings.Contains(name, part) })
}

func cryptsetupFormat(t *testing.T, options []string) *luks2test.Volume {
	t.Helper()
	v := &luks2test.Volume{Path: filepath.Join(t.TempDir(), "volume.img"), Passphrase: luks2test.Passphrase}
	if err := os.WriteFile(v.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.Path, 32<<20); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"luksFormat", "-q", "--type", "luks2"}, options...)
	testenv.Run(t, "cryptsetup", append(args, v.Path, keyFile(t, v.Passphrase))...)
	var err error
	if v.Device, err = luks2.Open(v.Path, nil); err != nil {
		t.Fatal(err)
	}
	return v
}

func dumpedVolumeKey(t *testing.T, v *luks2test.Volume) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "volume-key")
	testenv.Run(t, "cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", file,
		"--key-file", keyFile(t, v.Passphrase), v.Path)
	return hex.EncodeToString(readFile(t, file))
}

func luksgoOpens(t *testing.T, path string, slot int, passphrase string) {
	t.Helper()
	d, err := luksgo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.UnsealVolume(slot, []byte(passphrase)); err != nil {
		t.Errorf("luks.go does not open keyslot %d: %v", slot, err)
	}
}

// sameJSON compares our document with what cryptsetup shows of it, and checks that
// cryptsetup finds nothing to repair.
func sameJSON(t *testing.T, v *luks2test.Volume) {
	t.Helper()
	before := readFile(t, v.Path)
	var theirs, ours any
	dump := testenv.Run(t, "cryptsetup", "luksDump", "--dump-json-metadata", v.Path)
	if err := json.Unmarshal([]byte(dump), &theirs); err != nil {
		t.Fatal(err)
	}
	h := header(t, v.Device)
	area := before[4096 : 4096+h.Space.JSONUsed]
	if err := json.Unmarshal(area, &ours); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("cryptsetup reads another document: %s", diff)
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("cryptsetup repaired something while reading")
	}
}

// TestTokenImportedByCryptsetupSurvives has a token that a JSON library with
// case-insensitive names would spoil.
func TestTokenImportedByCryptsetupSurvives(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	const odd = `{"type":"x","keyslots":[],"z":1.50,"Keyslots":{"a":[null]}}`
	v := luks2test.New(t)
	file := filepath.Join(t.TempDir(), "token.json")
	if err := os.WriteFile(file, []byte(odd), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", "token", "import", "--json-file", file, v.Path)
	imported, _ := header(t, v.Device).Token(0)
	v.Enroll(t, "recovery", luks2.Token{Type: "systemd-recovery"})
	if kept, _ := header(t, v.Device).Token(0); string(kept.Raw) != string(imported.Raw) {
		t.Errorf("imported %s, now %s", imported.Raw, kept.Raw)
	}
	out := testenv.Run(t, "cryptsetup", "token", "export", "--token-id", "0", v.Path)
	var got, want any
	if json.Unmarshal([]byte(out), &got) != nil || json.Unmarshal([]byte(odd), &want) != nil || !cmp.Equal(got, want) {
		t.Errorf("cryptsetup exports %s", out)
	}
}

// TestVolumeConvertedFromLUKS1 has a digest of 20 bytes whatever its hash is.
func TestVolumeConvertedFromLUKS1(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := cryptsetupFormat(t, []string{"--type", "luks1", "--hash", "sha256", "--pbkdf-force-iterations", "1000"})
	if _, err := v.Device.Header(t.Context()); !errors.Is(err, luks2.ErrLUKS1) {
		t.Errorf("before the conversion: %v", err)
	}
	testenv.Run(t, "cryptsetup", "convert", "-q", "--type", "luks2", v.Path)
	if d := header(t, v.Device).Digests[0]; len(d.Value) != 20 || d.Hash != "sha256" {
		t.Errorf("digest of %d bytes, %s", len(d.Value), d.Hash)
	}
	unlocked(t, v.Device, v.Passphrase)
	v.Enroll(t, "ours", luks2.Token{Type: "systemd-recovery"})
	if !cryptsetupOpens(t, v.Path, "ours", 1) {
		t.Error("cryptsetup does not open our keyslot")
	}
}
