package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/petest"
	"luksmith/internal/test/testenv"
)

// slots are the keyslots of the volume by number, with their labels.
func (m *bootMachine) slots(volume string) map[int]string {
	m.t.Helper()
	r := m.run("list", "--json=short", volume)
	var list struct {
		Keyslots []struct {
			Slot  int
			Label string
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		m.t.Fatal(err, r.stderr)
	}
	found := map[int]string{}
	for _, s := range list.Keyslots {
		found[s.Slot] = s.Label
	}
	return found
}

// labels counts the keyslots with a label.
func (m *bootMachine) labels(volume, label string) (n int) {
	m.t.Helper()
	for _, l := range m.slots(volume) {
		if l == label {
			n++
		}
	}
	return n
}

// wantKeys wants so many keyslots with each label.
func (m *bootMachine) wantKeys(volume string, want map[string]int) {
	m.t.Helper()
	for label, n := range want {
		if got := m.labels(volume, label); got != n {
			m.t.Errorf("%d keyslots for %s, want %d: %v", got, label, n, m.slots(volume))
		}
	}
}

// settled is a machine whose volume opens by keys that follow made, and by no other
// token.
func settled(t *testing.T) (m *bootMachine, volume string) {
	t.Helper()
	m, volume = followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	return m, volume
}

func TestFollowWipesTheKeyOfARemovedKernel(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2", "second")
	m.want(0, m.follow("--json=short"))
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 1})
	m.start("debian-6.12.2")
	m.remove("debian-6.12.1")
	v := m.want(0, m.follow("--json=short", "--dry-run"))
	if left := v.Volumes[0].Left; len(left) != 1 || left[0].Reason != "its entry is gone" || left[0].Label != "debian-6.12.1" {
		t.Errorf("--dry-run: %+v", left)
	}
	v = m.want(0, m.follow("--json=short"))
	if !v.Changed || len(v.Volumes[0].Wiped) != 1 || len(v.Volumes[0].Left) != 0 {
		t.Errorf("%+v", v)
	}
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 0, "debian-6.12.2": 1})
	if v := m.want(0, m.follow("--json=short")); v.Changed {
		t.Errorf("again: %+v", v)
	}
	if m.start("debian-6.12.2"); !m.opens(volume) {
		t.Error("it does not open")
	}
}

// TestFollowKeepsTheRunningStateUntilTheNextOne: the old initrd is gone from the disk,
// but the machine is still in its state; of two updates before the reboot the first
// leaves nothing.
func TestFollowKeepsTheRunningStateUntilTheNextOne(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	for i, initrd := range []string{"second", "third"} {
		m.install("debian-6.12.1", initrd)
		v := m.want(0, m.follow("--json=short"))
		if len(v.Volumes[0].Wiped) != i {
			t.Errorf("%s: %+v", initrd, v)
		}
		m.wantKeys(volume, map[string]int{"debian-6.12.1": 2})
		if !m.opens(volume) {
			t.Fatal("the running state does not open")
		}
	}
	m.start("debian-6.12.1")
	if v := m.want(0, m.follow("--json=short")); len(v.Volumes[0].Wiped) != 1 {
		t.Errorf("after the reboot: %+v", v)
	}
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1})
	if !m.opens(volume) {
		t.Error("it does not open")
	}
}

// TestFollowWipesNothingWithoutAProof: a passphrase opened the volume, and no token of
// the running state has.
func TestFollowWipesNothingWithoutAProof(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2", "second")
	m.want(0, m.follow("--json=short"))
	m.remove("debian-6.12.1")
	m.unplug = []int{4} // something unexpected was started before
	m.start("debian-6.12.2")
	before := content(t, filepath.Join(m.root, volume))
	for _, env := range []string{"", "PASSWORD=hunter2"} {
		cmd := m.command("follow", "--esp-path=/efi", "--tpm2-device="+m.chip.Device(), "--json=short")
		cmd.Env = []string{env}
		if v := m.want(13, runCommand(t, cmd)); v.Changed {
			t.Errorf("%s: %+v", env, v)
		}
	}
	if string(before) != string(content(t, filepath.Join(m.root, volume))) {
		t.Error("the volume was changed")
	}
	if m.start("debian-6.12.2"); !m.opens(volume) {
		t.Error("it does not open")
	}
}

// TestFollowKeepsWhatItCannotTell: the loader is of a version that was not measured,
// and another system has keys too.
func TestFollowKeepsWhatItCannotTell(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	ours := content(t, filepath.Join(m.root, "var/lib/luksmith/follow.json")) // it has one of its own
	m.put("etc/machine-id", []byte("ffffffffffffffffffffffffffffffff\n"))
	m.install("other-1", "of the other system")
	m.want(0, m.follow("--json=short"))
	m.remove("other-1")
	m.put("var/lib/luksmith/follow.json", ours)
	m.put("etc/machine-id", []byte(machineID+"\n"))
	m.install("debian-6.12.2", "second")
	m.want(0, m.follow("--json=short"))
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("258"))
	if v := m.want(13, m.follow("--json=short")); v.Changed {
		t.Errorf("%+v", v)
	}
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 1, "other-1": 1})
}

// TestFollowMakesRoom: keys that are left over go first where the new ones do not fit.
func TestFollowMakesRoom(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	names := func(kind string) (list []string) {
		for i := range 5 {
			list = append(list, fmt.Sprintf("%s-%d", kind, i))
		}
		return list
	}
	for _, name := range names("old") {
		m.install(name, name)
	}
	m.want(0, m.follow("--json=short"))
	for _, name := range names("old") {
		m.remove(name)
	}
	for _, name := range names("new") {
		m.install(name, name)
	}
	v := m.want(0, m.follow("--json=short"))
	if len(v.Volumes[0].Wiped) != 5 {
		t.Errorf("%+v", v)
	}
	for _, name := range names("new") {
		m.wantKeys(volume, map[string]int{name: 1})
	}
}

// TestFollowHasRoomForTheNewestEntry: it is the one that is booted next. Of a full header
// the oldest entry loses its key to it, but never the one that runs.
func TestFollowHasRoomForTheNewestEntry(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	for i := range 12 {
		m.install(fmt.Sprintf("debian-6.12.%d", 2+i), fmt.Sprint("number ", i))
	}
	m.want(12, m.follow("--json=short"))
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.13": 1, "debian-6.12.12": 1, "debian-6.12.2": 0})
	full := len(m.slots(volume))
	var oldest string
	for i := 13; m.labels(volume, fmt.Sprintf("debian-6.12.%d", i)) == 1; i-- {
		oldest = fmt.Sprintf("debian-6.12.%d", i)
	}
	m.install("debian-6.12.14", "the newest")
	v := m.want(12, m.follow("--json=short", "--dry-run"))
	if len(v.Volumes[0].Left) != 1 || v.Volumes[0].Left[0].Label != oldest {
		t.Errorf("--dry-run: %+v", v.Volumes[0].Left)
	}
	m.hook("will ask for a passphrase: the header has no room for a key: no space in the header: the JSON area has 12287 bytes, ")
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.14": 1, "debian-6.12.13": 1, oldest: 0})
	if n := len(m.slots(volume)); n != full {
		t.Errorf("%d keyslots, before %d", n, full)
	}
	if v := m.want(12, m.follow("--json=short")); v.Changed {
		t.Errorf("again: %+v", v)
	}
	// Where no token of the running state opens the volume, nothing goes.
	m.unplug = []int{4}
	m.start("debian-6.12.1")
	m.put("key", []byte("hunter2"))
	m.install("debian-6.12.15", "newer still")
	m.want(13, m.follow("--json=short", "--unlock-key-file=/key", "--accept-changed"))
	if n := len(m.slots(volume)); n != full {
		t.Errorf("%d keyslots without a proof, before %d", n, full)
	}
}

// TestFollowKilledAtAnyMoment loses nothing that opened before, and the next call
// finishes the work.
func TestFollowKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "strace")
	m, volume := settled(t)
	m.install("debian-6.12.2", "second")
	m.want(0, m.follow("--json=short"))
	m.start("debian-6.12.2")
	m.remove("debian-6.12.1")
	m.install("debian-6.12.3", "third")
	state := content(t, filepath.Join(m.root, volume))
	calls := []string{"pwrite64", "fsync", "fdatasync"}
	// strace counts for each thread, and on a busy machine the calls are spread over
	// more of them: a call that comes through may not be the end.
	killed, ended := 0, 0
	for n := 1; ended < 3 && n < 60; n++ {
		m.put("volume.img", state)
		args := append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + strings.Join(calls, ","),
			"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", strings.Join(calls, ","), n), "chroot", m.root},
			m.command("follow", "--accept-changed", "--esp-path=/efi", "--tpm2-device="+m.chip.Device()).Args...)
		cmd := exec.CommandContext(t.Context(), "strace", args...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1"}
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() == 0 {
			ended++
		} else {
			killed++
		}
		m.start("debian-6.12.2") // also forgets the sessions of the killed one
		if !m.opens(volume) {
			t.Fatalf("killed at call %d: the running state does not open", n)
		}
		if r := runCommand(t, m.command("test", volume)); r.status != 0 {
			t.Fatalf("killed at call %d: the passphrase does not open: %s", n, r.stderr)
		}
		m.want(0, m.follow("--json=short", "--accept-changed"))
		m.wantKeys(volume, map[string]int{"debian-6.12.1": 0, "debian-6.12.2": 1, "debian-6.12.3": 1})
	}
	if killed < 3 || ended < 3 {
		t.Errorf("killed %d times, ended %d times", killed, ended)
	}
	t.Logf("killed %d times", killed)
	if keys := m.slots(volume); len(keys) != 3 {
		t.Errorf("keyslots: %v", keys)
	}
}

// TestFollowWipesTheKeysOfTwoRemovedKernels at once.
func TestFollowWipesTheKeysOfTwoRemovedKernels(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2", "second")
	m.install("debian-6.12.3", "third")
	m.want(0, m.follow("--json=short"))
	m.start("debian-6.12.3")
	m.remove("debian-6.12.1")
	m.remove("debian-6.12.2")
	if v := m.want(0, m.follow("--json=short")); len(v.Volumes[0].Wiped) != 2 {
		t.Errorf("%+v", v)
	}
	if keys := m.slots(volume); len(keys) != 2 || !m.opens(volume) {
		t.Errorf("keyslots: %v", keys)
	}
}

// TestFollowKnowsAnEntryWhoseBootsAreCounted: the loader renames it before it starts it,
// and systemd when the boot was good.
func TestFollowKnowsAnEntryWhoseBootsAreCounted(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2+3", "second")
	m.want(0, m.follow("--json=short"))
	for _, name := range []string{"debian-6.12.2+2-1", "debian-6.12.2"} {
		m.remove(map[string]string{"debian-6.12.2+2-1": "debian-6.12.2+3", "debian-6.12.2": "debian-6.12.2+2-1"}[name])
		m.install(name, "second")
		if m.start(name); !m.opens(volume) {
			t.Errorf("%s does not open", name)
		}
		if v := m.want(0, m.follow("--json=short")); v.Changed {
			t.Errorf("%s: %+v", name, v)
		}
	}
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 1})
}
