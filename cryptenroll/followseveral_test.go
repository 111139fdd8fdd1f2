package main

import (
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
	if err := os.Rename(away, filepath.Join(m.root, other)); err != nil {
		t.Fatal(err)
	}
	m.hook("a keyslot was made")
	m.start("debian-6.12.2")
	if !m.opens(volume) || !m.opens(other) {
		t.Error("a volume does not open")
	}
}
