package main

import (
	"os"
	"path/filepath"
	"testing"
)

// separatorUnit is where systemd 261 and later have the unit.
const separatorUnit = "usr/lib/systemd/system/systemd-pcrosseparator.service"

// TestFollowSealsWithAndWithoutTheSeparator: when the unit came, nobody can say whether
// a new initrd extends os-separator. Which of the two it was shows at its boot.
func TestFollowSealsWithAndWithoutTheSeparator(t *testing.T) {
	t.Parallel()
	for name, does := range map[string]bool{"the initrd has the unit": true, "it has not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, volume := settled(t)
			m.hook("")
			m.put(separatorUnit, nil)
			m.hook("") // what is there stays as it is
			m.install("debian-6.12.2", "made with systemd 261")
			m.hook("2 keyslots were made for the next boot")
			m.hook("")
			m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 2})
			// Back to the old one in between.
			if m.start("debian-6.12.1"); !m.opens(volume) {
				t.Error("the old entry does not open")
			}
			m.hook("")
			m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 2})
			m.separates = does
			if m.start("debian-6.12.2"); !m.opens(volume) {
				t.Fatal("the new entry does not open")
			}
			m.hook("")
			m.wantKeys(volume, map[string]int{"debian-6.12.2": 1})
			m.install("debian-6.12.3", "made with it too")
			m.hook("a keyslot was made for the next boot")
			if m.start("debian-6.12.3"); !m.opens(volume) {
				t.Error("the next one does not open")
			}
		})
	}
}

// TestFollowSealsForTheSeparatorThatGoes: the unit went with an older systemd.
func TestFollowSealsForTheSeparatorThatGoes(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.separates = true
	m.put(separatorUnit, nil)
	m.start("debian-6.12.1")
	m.put("key", []byte("hunter2"))
	m.want(0, m.follow("--json=short", "--unlock-key-file=/key"))
	if m.start("debian-6.12.1"); !m.opens(volume) {
		t.Fatal("the running state does not open")
	}
	m.hook("")
	if err := os.Remove(filepath.Join(m.root, separatorUnit)); err != nil {
		t.Fatal(err)
	}
	m.install("debian-6.12.2", "made without")
	m.hook("2 keyslots were made for the next boot")
	m.separates = false
	if m.start("debian-6.12.2"); !m.opens(volume) {
		t.Error("it does not open")
	}
	m.hook("")
	m.wantKeys(volume, map[string]int{"debian-6.12.2": 1})
}
