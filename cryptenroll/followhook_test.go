package main

import (
	"path/filepath"
	"strings"
	"testing"

	"luksmith/luks2"
)

// hook is a call by a hook, which has to succeed whatever happens.
func (m *bootMachine) hook(want string) {
	m.t.Helper()
	r := m.follow("--hook")
	if r.status != 0 || r.stdout != "" || strings.Count(r.stderr, "\n") > 1 || !strings.Contains(r.stderr, want) || want == "" && r.stderr != "" {
		m.t.Errorf("hook: %d, want %q\n%s%s", r.status, want, r.stdout, r.stderr)
	}
}

func TestHookDoesNothingBeforeFollowWasCalled(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.hook("")
	m.want(0, m.follow("--json=short", volume))
	m.want(0, m.follow("--json=short", "--off=false"))
	if r := m.follow("--off", volume); r.status != 0 {
		t.Fatal(r.stderr)
	}
	before := content(t, filepath.Join(m.root, volume))
	m.install("debian-6.12.2", "second")
	m.hook("")
	if string(before) != string(content(t, filepath.Join(m.root, volume))) {
		t.Error("the volume was changed")
	}
}

func TestHookSealsForWhatAnUpdateBrought(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.hook("")
	m.install("debian-6.12.2", "second")
	m.hook("a keyslot was made for the next boot")
	m.hook("")
	if m.start("debian-6.12.2"); !m.opens(volume) {
		t.Error("it does not open")
	}
	m.hook("") // the unit at boot
	m.install("debian-6.12.1", "another initrd")
	m.hook("a keyslot was made")
	m.wantKeys(volume, map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 1})
}

// TestHookKeepsToTheVersionOfSystemdThatWasNamed: tokens for systemd 254 and later name
// the storage key, and those before cannot load them.
func TestHookKeepsToTheVersionOfSystemdThatWasNamed(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", "--compat=252", volume))
	m.install("debian-6.12.2", "second")
	m.hook("a keyslot was made for the next boot")
	dev, err := luks2.Open(filepath.Join(m.root, volume), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := dev.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, token := range h.Tokens {
		if !strings.Contains(string(token.Raw), `"entry":"debian-6.12.`) {
			continue
		}
		if made++; strings.Contains(string(token.Raw), "tpm2_srk") {
			t.Errorf("systemd 252 cannot load it: %s", token.Raw)
		}
	}
	if made != 2 {
		t.Errorf("%d keyslots for boot entries", made)
	}
}

// TestHookSealsNothingThatChangedWhileTheMachineWasOff: else the thief exchanges an
// entry, lets the machine start with the good one, and then starts his own.
func TestHookSealsNothingThatChangedWhileTheMachineWasOff(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.install("debian-6.12.2", "second")
	m.hook("a keyslot was made")
	m.install("debian-6.12.2", "of the thief")
	m.start("debian-6.12.1")
	for range 2 { // also not at a second look
		m.hook("debian-6.12.2 will ask for a passphrase: its files changed while this system did not run")
	}
	m.install("debian-6.12.3", "of an update")
	m.hook("debian-6.12.2 will ask")
	m.wantKeys(volume, map[string]int{"debian-6.12.2": 1, "debian-6.12.3": 1})
	if m.start("debian-6.12.2"); m.opens(volume) {
		t.Fatal("the thief's image opens the volume")
	}
	// A person may say that it was his doing.
	m.start("debian-6.12.1")
	m.hook("debian-6.12.2 will ask")
	m.want(0, m.follow("--json=short", "--accept-changed"))
	if m.start("debian-6.12.2"); !m.opens(volume) {
		t.Error("it does not open")
	}
}

// TestHookAsksNobody: no token of the running state opens the volume, and neither
// $PASSWORD nor a credential is used.
func TestHookAsksNobody(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.hook("")
	m.unplug = []int{4}
	m.start("debian-6.12.1")
	m.hook("debian-6.12.1 will ask for a passphrase: in the boot that is running")
	m.start("debian-6.12.1")
	m.hook("")
	for slot := range m.slots(volume) {
		if slot != 0 {
			if r := runCommand(t, m.command("--wipe-slot="+string(rune('0'+slot)), volume)); r.status != 0 {
				t.Fatal(r.stderr)
			}
		}
	}
	before := content(t, filepath.Join(m.root, volume))
	r := runCommand(t, m.command("follow", "--hook", "--esp-path=/efi", "--tpm2-device="+m.chip.Device()))
	if r.status != 0 || !strings.Contains(r.stderr, "luksmith: the next boot may ask for a passphrase: opening /volume.img: no TPM2 token opens it in this boot") {
		t.Errorf("%d %s", r.status, r.stderr)
	}
	if string(before) != string(content(t, filepath.Join(m.root, volume))) {
		t.Error("the volume was changed")
	}
	m.put("var/lib/luksmith/follow.json", []byte("{"))
	m.hook("the next boot may ask for a passphrase: reading /var/lib/luksmith/follow.json")
	if r := m.follow("--hook", volume); r.status != 1 {
		t.Errorf("with a volume: %d", r.status)
	}
}
