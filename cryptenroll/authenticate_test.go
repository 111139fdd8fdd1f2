package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// cryptsetup runs the real one and returns what it prints.
func cryptsetup(t testing.TB, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("cryptsetup", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %q: %v\n%s", args, err, out)
	}
	return out
}

// editToken does what somebody without a key can: it changes the text of token 0.
func editToken(t testing.TB, volume string, edit func(m map[string]json.RawMessage)) {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(cryptsetup(t, "token", "export", "--token-id", "0", volume), &m); err != nil {
		t.Fatal(err)
	}
	edit(m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "token", "remove", "--token-id", "0", volume)
	cryptsetup(t, "token", "import", "--token-id", "0", "--json-file", file, volume)
}

// withoutMAC makes the token look as if systemd had made it.
func withoutMAC(m map[string]json.RawMessage) { delete(m, "luksmith") }

// copyOf is a copy of a volume that may be spoilt.
func copyOf(t testing.TB, volume string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume.img")
	if err := os.WriteFile(path, content(t, volume), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pinned is a volume whose token wants PCR 7 and a PIN, closed in this state.
func pinned(t *testing.T, args ...string) (volume, device string) {
	t.Helper()
	testenv.Need(t, "swtpm", "cryptsetup")
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	must(t, append([]string{"--tpm2-device=" + chip.Device(), "--tpm2-pcrs=7:sha256", "--tpm2-with-pin=yes", "--compat=257", v.Path}, args...)...)
	chip.Extend(7, "sha256", make([]byte, 32))
	return v.Path, chip.Device()
}

var bothPINs = []string{"PASSWORD=hunter2", "PIN=4711", "NEWPIN=4711"}

// edits are what takes a condition away or puts another in its place.
var edits = map[string]func(m map[string]json.RawMessage){
	"no PIN":           func(m map[string]json.RawMessage) { delete(m, "tpm2-pin") },
	"PIN false":        func(m map[string]json.RawMessage) { m["tpm2-pin"] = json.RawMessage("false") },
	"no PCRs":          func(m map[string]json.RawMessage) { m["tpm2-pcrs"] = json.RawMessage("[]") },
	"other PCRs":       func(m map[string]json.RawMessage) { m["tpm2-pcrs"] = json.RawMessage("[16]") },
	"more PCRs":        func(m map[string]json.RawMessage) { m["tpm2-pcrs"] = json.RawMessage("[7,16]") },
	"another bank":     func(m map[string]json.RawMessage) { m["tpm2-pcr-bank"] = json.RawMessage(`"sha1"`) },
	"no bank":          func(m map[string]json.RawMessage) { delete(m, "tpm2-pcr-bank") },
	"no salt":          func(m map[string]json.RawMessage) { delete(m, "tpm2_salt") },
	"no storage key":   func(m map[string]json.RawMessage) { delete(m, "tpm2_srk") },
	"a pcrlock policy": func(m map[string]json.RawMessage) { m["tpm2_pcrlock"] = json.RawMessage("true") },
	"neither":          func(m map[string]json.RawMessage) { delete(m, "tpm2-pin"); m["tpm2-pcrs"] = json.RawMessage("[]") },
	"a signed policy": func(m map[string]json.RawMessage) {
		m["tpm2_pubkey_pcrs"], m["tpm2_pubkey"] = json.RawMessage("[11]"), json.RawMessage(`"`+strangersKey+`"`)
	},
	"a cheap PIN": func(m map[string]json.RawMessage) {
		m["tpm2_argon2id_memcost"], m["tpm2_argon2id_iterations"], m["tpm2_argon2id_lanes"] = json.RawMessage("8192"), json.RawMessage("1"), json.RawMessage("1")
	},
}

// TestNoWeakerKeyFromAnEditedToken edits a token as whoever can write the disk can,
// and has scripts re-seal it and change its PIN.
func TestNoWeakerKeyFromAnEditedToken(t *testing.T) {
	t.Parallel()
	volume, device := pinned(t)
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			for _, more := range []func(m map[string]json.RawMessage){func(map[string]json.RawMessage) {}, withoutMAC} {
				for _, call := range [][]string{{"reseal", "--if-needed", "--yes"}, {"reseal"}, {"--tpm2-change-pin"}} {
					path := copyOf(t, volume)
					editToken(t, path, func(m map[string]json.RawMessage) { edit(m); more(m) })
					before := content(t, path)
					r := runCommand(t, alone(t, bothPINs, append(call, "--tpm2-device="+device, path)...))
					if r.status == 0 || !bytes.Equal(before, content(t, path)) {
						t.Errorf("%q: exit status %d, header changed: %t\n%s", call, r.status, !bytes.Equal(before, content(t, path)), r.stderr)
					}
				}
			}
		})
	}
}

// TestEditedTokenIsReported: list sees an edit without a key, test with one.
func TestEditedTokenIsReported(t *testing.T) {
	t.Parallel()
	volume, device := pinned(t)
	editToken(t, volume, edits["no PIN"])
	if r := must(t, "list", volume); !strings.Contains(r.stdout, "altered since it was enrolled") {
		t.Errorf("list:\n%s", r.stdout)
	}
	if r := must(t, "test", "--all", "--unlock-tpm2-device="+device, volume); !strings.Contains(r.stdout, "altered since it was enrolled") {
		t.Errorf("test:\n%s", r.stdout)
	}
	p := sit(t, "reseal", "--tpm2-device="+device, volume)
	p.sees(`current passphrase for disk`)
	p.types("hunter2\r")
	p.sees(`refused: keyslot 1 \(tpm2\) was altered since it was enrolled`)
	p.ends(9)
}

// TestAuthenticTokenIsResealedUnattended: what nobody edited is done without a
// question.
func TestAuthenticTokenIsResealedUnattended(t *testing.T) {
	t.Parallel()
	volume, device := pinned(t, "--label=laptop")
	must(t, "label", volume, "1", "office") // the MAC does not cover names
	r := runCommand(t, alone(t, bothPINs, "reseal", "--if-needed", "--yes", "--tpm2-device="+device, volume))
	if r.status != 0 || !strings.Contains(r.stderr, "to unlock: PCR 7 (sha256), PIN") {
		t.Errorf("exit status %d\n%s", r.status, r.stderr)
	}
	r = runCommand(t, alone(t, []string{"PASSWORD=hunter2", "PIN=4711", "NEWPIN=0815"}, "--tpm2-change-pin", "--tpm2-device="+device, volume))
	if r.status != 0 {
		t.Errorf("changing the PIN: exit status %d\n%s", r.status, r.stderr)
	}
}

// TestTokenOfSystemdIsAskedAbout: nothing vouches for its conditions, so the person
// does, on the terminal or by naming all of them.
func TestTokenOfSystemdIsAskedAbout(t *testing.T) {
	t.Parallel()
	volume, device := pinned(t)
	editToken(t, volume, withoutMAC)
	for _, c := range []struct {
		options []string
		status  int
	}{
		{nil, 9},
		{[]string{"--yes"}, 9},
		{[]string{"--tpm2-pcrs=7"}, 9}, // the PIN is not named
		{[]string{"--tpm2-pcrs=7", "--tpm2-with-pin=no"}, 9},
		{[]string{"--tpm2-with-pin=yes"}, 1},
		{[]string{"--tpm2-pcrs=7+11", "--tpm2-pcrs-as-they-are", "--tpm2-with-pin=yes", "--yes"}, 0},
		{[]string{"--tpm2-pcrs=7", "--tpm2-with-pin=yes"}, 0},
	} {
		path := copyOf(t, volume)
		before := content(t, path)
		r := runCommand(t, alone(t, bothPINs, append(append([]string{"reseal", "--compat=257", "--tpm2-device=" + device}, c.options...), path)...))
		if r.status != c.status || (c.status == 0) == bytes.Equal(before, content(t, path)) {
			t.Errorf("%q: exit status %d, want %d\n%s", c.options, r.status, c.status, r.stderr)
		}
	}
	for answer, status := range map[string]int{"n\r": 11, "y\r": 0} {
		path := copyOf(t, volume)
		p := sit(t, "reseal", "--tpm2-device="+device, path)
		p.sees(`current passphrase for disk`)
		p.types("hunter2\r")
		p.sees(`Nothing proves that keyslot 1 .*The new key will open with: PCR 7 \(sha256\), PIN`)
		p.types(answer)
		if status == 0 {
			p.sees(`PIN of the TPM`)
			p.types("4711\r")
		}
		p.ends(status)
	}
}

// TestCryptsetupsOwnWorkIsNoAttack: cryptsetup's own work on a volume is not
// reported as an attack.
func TestCryptsetupsOwnWorkIsNoAttack(t *testing.T) {
	t.Parallel()
	volume, device := pinned(t)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(old, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"uuid":       {"luksUUID", "-q", "--uuid", "12345678-1234-4234-8234-123456789abc"},
		"change key": {"luksChangeKey", "-q", "--key-file", old, "--key-slot", "0", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"},
		"reencrypt":  {"reencrypt", "-q", "--disable-locks", "--key-file", old, "--key-slot", "0", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--force-offline-reencrypt"},
	} {
		path := copyOf(t, volume)
		full := append(args, path)
		if name == "change key" {
			full = append(full, old)
		}
		cryptsetup(t, full...)
		if r := must(t, "list", path); strings.Contains(r.stdout, "altered") {
			t.Errorf("%s: list\n%s", name, r.stdout)
		}
		if !strings.Contains(string(cryptsetup(t, "luksDump", path)), "systemd-tpm2") {
			continue // the keyslot, and the token with it, is gone
		}
		r := runCommand(t, alone(t, bothPINs, "reseal", "--tpm2-device="+device, path))
		if want := map[string]int{"change key": 0, "uuid": 9, "reencrypt": 9}[name]; r.status != want && !strings.Contains(r.stderr, "no TPM2 keyslot") {
			t.Errorf("%s: exit status %d, want %d\n%s", name, r.status, want, r.stderr)
		}
	}
}

// strangersKey is the PEM text of an RSA key in base64, as tokens hold it.
const strangersKey = "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUlJQklqQU5CZ2txaGtpRzl3MEJBUUVGQUFPQ0FROEFNSUlCQ2dLQ0FRRUF2RUVEUU8wWEc2ZHYrL3c0djhWbwpRSkVTMWxSZDNRaHVqR2kvZUlKbUkyRjhGOEFFVngvUys2VDBGcm1rbEVBOE5LUit6WVhvV0hMVGx4RDlYSHVVClJScDBsRnBHbjlYWWgvcUFKS0xOOWVuWjZ5Tm9TdWRrMitrUnRIQXZXeXV6VHBzMzNZSVZHdnlrOFJtWGxpYXoKM0dBN0FYbWU4NWdlMFoyeEhlT1MxT01neGFFZWJ0bjhiNTNjaWFOaExqZlBSWlg5S1MrcnF4NXBFK21FRWthbwplMC9ZUzR6amdLSFVNQUdmUi92STR1TUsrU0RjQVRLVnY4aHE5ZUY2MFZkSGtLY0k3b0NEQ1RVK2pOcDRLUzJqCk9wZzdOSU5qQlNYU09IZDBNSnA0Mlh6MStEOE5yV2xtV0JidVQxTTBLYjNLL3JRM1lWeWRidUx2d3JJbjlJZFEKVHdJREFRQUIKLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg=="
