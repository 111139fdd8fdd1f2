package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
)

// TestFollowSeveralVolumes: each gets its keys, and one that is away does not keep the
// others from theirs.
func TestFollowSeveralVolumes(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	other := "/other.img"
	if err := os.Rename(luks2test.New(t).Path, filepath.Join(m.root, other)); err != nil {
		t.Fatal(err)
	}
	if r := runCommand(t, m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=7", other)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	if v := m.want(0, m.follow("--json=short", volume, other)); len(v.Volumes) != 2 || !v.Volumes[0].States[0].New || !v.Volumes[1].States[0].New {
		t.Fatalf("%+v", v)
	}
	for _, path := range []string{volume, other} {
		if r := runCommand(t, m.command("--wipe-slot=1", path)); r.status != 0 {
			t.Fatal(r.stderr)
		}
	}
	m.install("debian-6.12.2", "second")
	away := filepath.Join(m.root, "away")
	if err := os.Rename(filepath.Join(m.root, other), away); err != nil {
		t.Fatal(err)
	}
	r := m.follow("--json=short")
	if v := m.want(4, r); len(v.Volumes) != 1 || !v.Changed || !strings.Contains(r.stderr, "which is followed, is not /other.img") {
		t.Errorf("%+v\n%s", v, r.stderr)
	}
	m.hook("the next boot may ask for a passphrase: wrong device: the volume ")
	if err := os.Rename(away, filepath.Join(m.root, other)); err != nil {
		t.Fatal(err)
	}
	m.hook("a keyslot was made")
	m.start("debian-6.12.2")
	if !m.opens(volume) || !m.opens(other) {
		t.Error("a volume does not open")
	}
}

// TestFollowRefusesOneVolumeAndNotTheOthers: what somebody did to one is no reason for
// the others to ask for a passphrase.
func TestFollowRefusesOneVolumeAndNotTheOthers(t *testing.T) {
	t.Parallel()
	m, edited := signingMachine(t, true)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", "--signature-file=/etc/luksmith/signatures.json", edited))
	signatures := content(t, filepath.Join(m.root, "etc/luksmith/signatures.json"))
	const other = "/other.img"
	if err := os.Rename(luks2test.New(t).Path, filepath.Join(m.root, other)); err != nil {
		t.Fatal(err)
	}
	m.put("key", []byte("hunter2"))
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", "--tpm2-with-pin=no", "--unlock-key-file=/key", other))
	if string(signatures) != string(content(t, filepath.Join(m.root, "etc/luksmith/signatures.json"))) {
		t.Error("a call about another volume took the signatures out of the file")
	}
	editToken(t, filepath.Join(m.root, edited), func(m map[string]json.RawMessage) {
		m["tpm2_pubkey_pcrs"] = json.RawMessage("[0]")
		withoutMAC(m)
	})
	m.install("debian-6.12.2", "second kernel")
	r := m.follow("--json=short")
	if v := m.want(9, r); len(v.Volumes) != 1 || !v.Volumes[0].States[1].New || !strings.Contains(r.stderr, "/volume.img: refused") {
		t.Errorf("%+v\n%s", v, r.stderr)
	}
	m.hook("the next boot may ask for a passphrase: /volume.img: refused")
	if m.start("debian-6.12.2"); !m.opens(other) {
		t.Error("the other volume does not open")
	}
}
