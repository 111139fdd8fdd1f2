package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/petest"
)

// TestFollowTakesNoEmptyFolderForABootPartition: a look at the place where one is not
// mounted is none. What is there once it is mounted may be from a thief.
func TestFollowTakesNoEmptyFolderForABootPartition(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	evil := petest.Image("257", petest.Kernel("6.12.1"), []byte("of the thief"), "quiet")
	m.put("extended/EFI/Linux/other.efi", petest.Image("257", petest.Kernel("6.12.1"), []byte("ours"), "quiet"))
	if v := m.want(0, m.follow("--json=short", "--boot-path=/extended", volume)); len(v.Volumes[0].States) != 2 {
		t.Fatalf("%+v", v)
	}
	if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	for _, place := range []string{"extended", "efi"} {
		away := filepath.Join(m.root, "away")
		if err := errors.Join(os.Rename(filepath.Join(m.root, place), away), os.Mkdir(filepath.Join(m.root, place), 0o755)); err != nil {
			t.Fatal(err)
		}
		if place == "extended" {
			m.start("debian-6.12.1")
			m.want(0, m.follow("--json=short"))
		} else {
			m.put("proc/sys/kernel/random/boot_id", []byte("0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9aff\n"))
			if r := m.follow("--json=short"); r.status == 0 || !strings.Contains(r.stderr, "EFI system partition was not found") {
				t.Errorf("%d %s%s", r.status, r.stdout, r.stderr)
			}
		}
		if err := errors.Join(os.Remove(filepath.Join(m.root, place)), os.Rename(away, filepath.Join(m.root, place))); err != nil {
			t.Fatal(err)
		}
		m.put(place+"/EFI/Linux/evil.efi", evil)
		v := m.want(12, m.follow("--json=short"))
		for _, s := range v.Volumes[0].States {
			if s.Entry == "evil" && (s.New || s.Slot != nil || !s.Doubtful) || s.Entry != "evil" && s.Slot == nil {
				t.Errorf("%s: %+v", place, s)
			}
		}
		if err := os.Remove(filepath.Join(m.root, place, "EFI/Linux/evil.efi")); err != nil {
			t.Fatal(err)
		}
	}
}
