package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/petest"
)

// enrolled is a machine in its first boot, with a volume that a key for PCR 7 opens.
func followMachine(t testing.TB) (m *bootMachine, volume string) {
	t.Helper()
	m = newBootMachine(t)
	volume = m.volume()
	m.install("debian-6.12.1", "first initrd")
	m.start("debian-6.12.1")
	if r := runCommand(t, m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=7", volume)); r.status != 0 {
		t.Fatalf("enrolling: %d\n%s", r.status, r.stderr)
	}
	return m, volume
}

func (m *bootMachine) want(status int, r result) followView {
	m.t.Helper()
	var v followView
	if err := json.Unmarshal([]byte(r.stdout), &v); r.status != status || err != nil {
		m.t.Fatalf("exit status %d, want %d; %v\n%s%s", r.status, status, err, r.stdout, r.stderr)
	}
	return v
}

func TestFollowSealsForTheNextBoot(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	m.install("debian-6.12.1", "second initrd")
	m.install("debian-6.12.2", "another kernel")

	before := content(t, filepath.Join(m.root, volume))
	if v := m.want(0, m.follow("--json=short", "--dry-run")); !v.Changed || len(v.Volumes) != 1 || !v.Volumes[0].States[0].New {
		t.Errorf("--dry-run: %+v", v)
	}
	if string(before) != string(content(t, filepath.Join(m.root, volume))) {
		t.Fatal("--dry-run changed the volume")
	}
	v := m.want(0, m.follow("--json=short"))
	if !v.Changed || len(v.Volumes[0].States) != 2 || v.Volumes[0].States[0].PCRs != "4+7" || v.Volumes[0].States[0].Grade != "exact" {
		t.Errorf("%+v", v)
	}
	for _, entry := range []string{"debian-6.12.2", "debian-6.12.1"} {
		m.start(entry)
		for _, s := range m.want(0, m.follow("--json=short")).Volumes[0].States {
			if s.New {
				t.Errorf("in %s: %+v", entry, s)
			}
		}
	}
	// Without the key for PCR 7 it is those of the entries that open.
	if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	for _, entry := range []string{"debian-6.12.2", "debian-6.12.1"} {
		if m.start(entry); !m.opens(volume) {
			t.Errorf("%s does not open", entry)
		}
	}
	m.install("debian-6.12.1", "evil")
	if m.start("debian-6.12.1"); m.opens(volume) {
		t.Error("a changed image opens")
	}
}

func TestFollowWithNothingToDoOnlyReadsPCRs(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	before := content(t, filepath.Join(m.root, volume))
	m.chip.Mark()
	if v := m.want(0, m.follow("--json=short", volume)); v.Changed {
		t.Errorf("%+v", v)
	}
	for _, c := range m.chip.Commands() {
		if c.Code != 0x17e {
			t.Errorf("TPM command %#x", c.Code)
		}
	}
	if string(before) != string(content(t, filepath.Join(m.root, volume))) {
		t.Error("the volume was changed")
	}
}

// BenchmarkFollowIdle is what a hook of the package manager costs at each update that
// changes nothing for the volume.
func BenchmarkFollowIdle(b *testing.B) {
	m, volume := followMachine(b)
	m.want(0, m.follow("--json=short", volume))
	var list []time.Duration
	for b.Loop() {
		cmd := m.command("follow", "--esp-path=/efi", "--tpm2-device="+m.chip.Device(), volume)
		if r := runCommand(b, cmd); r.status != 0 {
			b.Fatal(r.stderr)
		}
		list = append(list, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	b.ReportMetric(0, "ns/op") // of the child: of no use
	b.ReportMetric(median(list).Seconds()*1000, "cpu-ms")
}

// TestFollowOpensByItself: the key comes from a token of the running boot; what does
// not open in it asks.
func TestFollowOpensByItself(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4", "--tpm2-with-pin=no", volume))
	if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	m.install("debian-6.12.1", "changed while nobody looked")
	m.start("debian-6.12.1")
	if r := m.follow("--json=short"); r.status != 2 || !strings.Contains(r.stderr, "opening /volume.img") {
		t.Errorf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
	m.install("debian-6.12.1", "and again") // what the boot was made of is in the record
	r := runCommand(t, m.command("follow", "--json=short", "--esp-path=/efi", "--tpm2-device="+m.chip.Device(), "--unlock-key-file=/key"))
	if r.status == 0 {
		t.Error("a key file that is not there was taken")
	}
	m.put("key", []byte("hunter2"))
	m.want(0, m.follow("--json=short", "--unlock-key-file=/key"))
	if m.start("debian-6.12.1"); !m.opens(volume) {
		t.Error("it does not open")
	}
}

func TestFollowSaysWhatItCannotTell(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("258"))
	r := m.follow(volume)
	if r.status != 13 || !strings.Contains(r.stdout, "debian-6.12.1: no key, it will ask for a passphrase: /EFI/BOOT/BOOTX64.EFI is systemd-boot 258, and what this version measures was not compared with a TPM (/EFI/Linux/debian-6.12.1.efi)") {
		t.Errorf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("257"))
	m.put("efi"+image("half"), []byte("MZ half of it"))
	r = m.follow(volume)
	if r.status != 12 || !strings.Contains(r.stdout, "half: no key") {
		t.Errorf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
}

// TestFollowSealsForWhatRunsUnderALoaderThatNobodyMeasured: nobody can say what it does
// beforehand, but what it did in this boot it does again with the same files.
func TestFollowSealsForWhatRunsUnderALoaderThatNobodyMeasured(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("258"))
	m.want(13, m.follow("--json=short"))
	if m.start("debian-6.12.1"); m.opens(volume) {
		t.Fatal("it opens with another loader")
	}
	m.put("key", []byte("hunter2"))
	m.install("debian-6.12.2", "second")
	v := m.want(12, m.follow("--json=short", "--unlock-key-file=/key"))
	if s := v.Volumes[0].States; len(s) != 2 || !s[0].New || s[0].Grade != "likely" || s[1].New || !strings.Contains(s[1].Reason, "258") || len(v.Volumes[0].Wiped) != 1 {
		t.Errorf("%+v", v)
	}
	m.remove("debian-6.12.2")
	if m.start("debian-6.12.1"); !m.opens(volume) {
		t.Error("it does not open after the passphrase and follow")
	}
	if v := m.want(0, m.follow("--json=short")); v.Changed {
		t.Errorf("again: %+v", v)
	}
	m.install("debian-6.12.1", "another initrd")
	m.want(13, m.follow("--json=short"))
	if m.start("debian-6.12.1"); m.opens(volume) {
		t.Error("a changed image opens")
	}
}

// TestFollowWeakensNothingUnasked: a key that opens without a person, beside one with
// a PIN or with fewer PCRs than all others, needs a word.
func TestFollowWeakensNothingUnasked(t *testing.T) {
	t.Parallel()
	m := newBootMachine(t)
	volume := m.volume()
	m.install("debian-6.12.1", "first initrd")
	m.start("debian-6.12.1")
	refused := func(args ...string) {
		t.Helper()
		before := content(t, filepath.Join(m.root, volume))
		cmd := m.command(append([]string{"follow", "--esp-path=/efi", "--tpm2-device=" + m.chip.Device()}, append(args, volume)...)...)
		r := runCommand(t, cmd)
		if r.status != 9 || !strings.Contains(r.stderr, "would open without a person") || !strings.Contains(r.stderr, "--tpm2-with-pin=no") {
			t.Errorf("%q: %d\n%s%s", args, r.status, r.stdout, r.stderr)
		}
		if string(before) != string(content(t, filepath.Join(m.root, volume))) {
			t.Error("it was written")
		}
		if _, err := os.Stat(filepath.Join(m.root, "var/lib/luksmith/follow.json")); err == nil {
			t.Error("it is followed")
		}
	}
	refused()
	cmd := m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=7", "--tpm2-with-pin=yes", volume)
	cmd.Env = append(cmd.Env, "NEWPIN=4711")
	if r := runCommand(t, cmd); r.status != 0 {
		t.Fatal(r.stderr)
	}
	refused()
	refused("--tpm2-pcrs=4+7")
	if r := m.follow("--tpm2-with-pin=yes", volume); r.status != 1 {
		t.Errorf("with a PIN: %d %s", r.status, r.stderr)
	}
	cmd = m.command("follow", "--esp-path=/efi", "--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=4+7", "--tpm2-with-pin=no", "--json=short", volume)
	m.want(0, runCommand(t, cmd))
	// What was said once holds for later calls.
	m.install("debian-6.12.1", "second initrd")
	m.want(0, m.follow("--json=short"))
}

func TestFollowKeepsTheHeaderUsableWhenItIsFull(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	for i := range 14 {
		m.install("debian-6."+string(rune('a'+i)), strings.Repeat("x", i))
	}
	v := m.want(12, m.follow("--json=short", volume))
	made, left := 0, 0
	for _, s := range v.Volumes[0].States {
		switch {
		case s.New:
			made++
		case strings.Contains(s.Reason, "no space in the header"):
			left++
		}
		if s.Running && !s.New {
			t.Error("the running entry has no key")
		}
	}
	if made < 5 || made+left != 15 {
		t.Errorf("%d made, %d without room", made, left)
	}
	t.Logf("%d states fit beside a passphrase and one key", made)
	if m.start("debian-6.12.1"); !m.opens(volume) {
		t.Error("it does not open")
	}
}

func TestFollowIsTurnedOff(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.want(0, m.follow("--json=short", volume))
	if r := m.follow("--off", volume); r.status != 0 {
		t.Error(r.stderr)
	}
	if text := string(content(t, filepath.Join(m.root, "var/lib/luksmith/follow.json"))); strings.Contains(text, "uuid") {
		t.Error(text)
	}
	if !m.opens(volume) {
		t.Error("the keys are gone")
	}
}
