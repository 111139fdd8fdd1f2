package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// doubted are the entries that are in doubt.
func (v followVolumeView) doubted() (list []string) {
	for _, s := range v.States {
		if s.Doubtful {
			list = append(list, s.Entry)
		}
	}
	return list
}

// reasons are those of a volume's states, by entry.
func (v followVolumeView) reasons() map[string]string {
	m := map[string]string{}
	for _, s := range v.States {
		m[s.Entry] = s.Reason
	}
	return m
}

// TestFollowDoesNotServeAThief: somebody who had the disk puts an entry of their own
// beside those of the system, which then boots as ever. No key is made for it until
// somebody says so.
func TestFollowDoesNotServeAThief(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4", "--tpm2-with-pin=no", volume))
	if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	m.install("thief", "copies the key")
	for range 2 {
		m.start("debian-6.12.1")
		for range 2 {
			v := m.want(12, m.follow("--json=short"))
			if doubted := v.Volumes[0].doubted(); v.Changed || v.Volumes[0].reasons()["thief"] != errDoubtful || !slices.Equal(doubted, []string{"thief"}) {
				t.Fatalf("%+v", v)
			}
		}
	}
	r := m.follow()
	if r.status != 12 || !strings.Contains(r.stderr, "cryptenroll follow --accept-changed") || !strings.Contains(r.stdout, errDoubtful) {
		t.Errorf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
	if m.start("thief"); m.opens(volume) {
		t.Fatal("the thief's image opens")
	}
	m.start("debian-6.12.1")
	if v := m.want(0, m.follow("--json=short", "--accept-changed")); !v.Changed {
		t.Errorf("%+v", v)
	}
	if v := m.want(0, m.follow("--json=short")); v.Changed {
		t.Errorf("%+v", v)
	}
}

// TestKeyOfAnEntryThatWasExchangedStays: what is in doubt is no reason to wipe either.
func TestKeyOfAnEntryThatWasExchangedStays(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.install("debian-6.12.2", "second kernel")
	m.want(0, m.follow("--json=short", volume))
	m.install("debian-6.12.2", "half of it is written")
	m.start("debian-6.12.1")
	v := m.want(12, m.follow("--json=short"))
	if v.Changed || len(v.Volumes[0].Left) != 0 || v.Volumes[0].reasons()["debian-6.12.2"] != errDoubtful {
		t.Errorf("%+v", v)
	}
	// What is installed while the system runs is the system's.
	m.install("debian-6.12.2", "written again")
	if v := m.want(0, m.follow("--json=short")); !v.Changed {
		t.Errorf("%+v", v)
	}
}

// TestWhatWasBootedIsNotInDoubt: the person has typed the passphrase for it.
func TestWhatWasBootedIsNotInDoubt(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	m.install("debian-6.12.1", "made in a rescue system")
	m.start("debian-6.12.1")
	if v := m.want(0, m.follow("--json=short")); !v.Changed {
		t.Errorf("%+v", v)
	}
}

func TestDamagedListOfEntriesDoubtsAll(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	m.put("var/lib/luksmith/entries.json", []byte("{"))
	m.install("debian-6.12.2", "second kernel")
	r := m.follow("--json=short", "--dry-run")
	if v := m.want(12, r); v.Volumes[0].reasons()["debian-6.12.2"] != errDoubtful || !strings.Contains(r.stderr, "entries.json") {
		t.Errorf("%+v\n%s", v, r.stderr)
	}
	if string(content(t, filepath.Join(m.root, "var/lib/luksmith/entries.json"))) != "{" {
		t.Error("--dry-run wrote")
	}
}

// TestDoubtfulEntryKeepsNoKeyFromTheOthers: with PCR 7 alone all entries have the same
// values, and that of a thief may come first.
func TestDoubtfulEntryKeepsNoKeyFromTheOthers(t *testing.T) {
	t.Parallel()
	m := newBootMachine(t)
	volume := m.volume()
	m.install("debian-6.12.1", "first initrd")
	m.start("debian-6.12.1")
	m.put("hunter", []byte("hunter2"))
	m.want(0, m.follow("--json=short", "--dry-run", "--tpm2-pcrs=7", "--tpm2-with-pin=no", "--unlock-key-file=/hunter", volume))
	m.put("var/lib/luksmith/entries.json", []byte(`{"version": 1, "places": 1, "images": []}`))
	m.install("aaa-thief", "copies the key")
	v := m.want(12, m.follow("--json=short", "--tpm2-pcrs=7", "--tpm2-with-pin=no", "--unlock-key-file=/hunter", volume))
	if !v.Changed || v.Volumes[0].reasons()["debian-6.12.1"] != "" || v.Volumes[0].reasons()["aaa-thief"] != errDoubtful {
		t.Errorf("%+v", v)
	}
}
