package main

import (
	"strings"
	"sync"
	"testing"
)

// TestHookKnowsWhereTheBootPartitionsAre: it has no options of its own.
func TestHookKnowsWhereTheBootPartitionsAre(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2", "second kernel")
	r := m.run("follow", "--hook", "--tpm2-device="+m.chip.Device())
	if r.status != 0 || !strings.Contains(r.stderr, "a keyslot was made for the next boot") {
		t.Errorf("%d %s%s", r.status, r.stdout, r.stderr)
	}
	if m.start("debian-6.12.2"); !m.opens(volume) {
		t.Error("it does not open")
	}
	r = m.run("predict", "--tpm2-device="+m.chip.Device())
	if r.status != 0 || !strings.Contains(r.stdout, "This boot: debian-6.12.2") {
		t.Errorf("predict: %d %s%s", r.status, r.stdout, r.stderr)
	}
}

// TestFollowUnderAnotherMachineID: the entries, and the keyslots, of before are still
// those of this system.
func TestFollowUnderAnotherMachineID(t *testing.T) {
	t.Parallel()
	m := newBootMachine(t)
	volume := m.volume()
	m.startFile(m.installEntry("debian-1", machineID, "initrd"))
	m.installEntry("debian-2", machineID, "another")
	m.put("key", []byte("hunter2"))
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7+9", "--tpm2-with-pin=no", "--unlock-key-file=/key", volume))

	const other = "0a1b2c3d4e5f4a5b8c9d0e1f2a3b4c5d"
	m.put("etc/machine-id", []byte(other+"\n"))
	for _, initrd := range []string{"of the first update", "of the second"} {
		file := m.installEntry("debian-1", machineID, initrd)
		if v := m.want(0, m.follow("--json=short")); !v.Volumes[0].States[0].New {
			t.Errorf("%+v", v)
		}
		m.startFile(file)
		m.want(0, m.follow("--json=short"))
		if m.wantKeys(volume, map[string]int{"debian-1": 1, "debian-2": 1}); !m.opens(volume) {
			t.Error("it does not open")
		}
	}
	file := m.installEntry("debian-3", other, "that knows the new ID")
	m.want(0, m.follow("--json=short"))
	m.startFile(file)
	m.removeEntry("debian-1")
	m.removeEntry("debian-2")
	m.want(0, m.follow("--json=short"))
	if m.wantKeys(volume, map[string]int{"debian-1": 0, "debian-2": 0, "debian-3": 1}); !m.opens(volume) {
		t.Error("it does not open")
	}
	m.installEntry("gentoo", "00000000000040008000000000000001", "of another system")
	if v := m.want(0, m.follow("--json=short")); v.Changed || len(v.Volumes[0].States) != 2 {
		t.Errorf("%+v", v)
	}
}

// TestFollowSaysThatNothingCanBeSealed: silence would be taken for success.
func TestFollowSaysThatNothingCanBeSealed(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.remove("debian-6.12.1")
	for range 2 {
		r := m.follow()
		if r.status != 13 || !strings.Contains(r.stdout, "no boot entry of this system was found") {
			t.Errorf("%d %s%s", r.status, r.stdout, r.stderr)
		}
		m.hook("the next boot may ask for a passphrase: no boot entry of this system was found")
		m.installEntry("gentoo", "00000000000040008000000000000001", "of another system")
	}
	if !m.opens(volume) {
		t.Error("the running state does not open any more")
	}
}

// TestFollowSeveralTimesAtOnce: each hook of an update may call it.
func TestFollowSeveralTimesAtOnce(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2", "second")
	m.install("debian-6.12.3", "third")
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			if r := m.follow(); r.status != 0 {
				t.Errorf("%d %s%s", r.status, r.stdout, r.stderr)
			}
		})
	}
	calls.Wait()
	if keys := m.slots(volume); len(keys) != 4 {
		t.Errorf("keyslots: %v", keys)
	}
}
