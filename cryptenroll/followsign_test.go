package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// signingMachine has a volume with a PIN token that takes values which a key signs, and
// that key; encrypted says that its file system is on a LUKS2 volume.
func signingMachine(t *testing.T, encrypted bool) (m *bootMachine, volume string) {
	t.Helper()
	return signingMachineWith(t, encrypted, "--tpm2-with-pin=direct")
}

// signingMachineWith is one whose token has another condition than a PIN.
func signingMachineWith(t *testing.T, encrypted bool, condition string) (m *bootMachine, volume string) {
	t.Helper()
	testenv.Need(t, "openssl")
	m = newBootMachine(t)
	volume = m.volume()
	m.install("debian-6.12.1", "first initrd")
	m.start("debian-6.12.1")
	key := filepath.Join(m.root, "etc/luksmith/follow-key.pem")
	m.put("etc/luksmith/public.pem", nil)
	testenv.Run(t, "openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
	testenv.Run(t, "openssl", "pkey", "-in", key, "-pubout", "-out", filepath.Join(m.root, "etc/luksmith/public.pem"))
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	m.put("proc/self/mountinfo", []byte("1 0 254:1 / / rw - ext4 /dev/dm-1 rw\n"))
	if encrypted {
		m.put("sys/dev/block/254:1/dm/uuid", []byte("CRYPT-LUKS2-0123-root\n"))
		m.put("sys/dev/block/254:1/slaves/sda2/dev", nil)
	}
	cmd := m.command("--tpm2-device="+m.chip.Device(), "--tpm2-public-key=/etc/luksmith/public.pem", "--tpm2-public-key-pcrs=4+7:sha256", condition, volume)
	cmd.Env = append(cmd.Env, "NEWPIN=4711")
	if r := runCommand(t, cmd); r.status != 0 {
		t.Fatalf("%d %s", r.status, r.stderr)
	}
	return m, volume
}

// opensWithPIN reports whether the token opens the volume.
func (m *bootMachine) opensWithPIN(volume string) bool {
	m.t.Helper()
	cmd := m.command("test", "--unlock-tpm2-device="+m.chip.Device(), volume)
	cmd.Env = []string{"PIN=4711"}
	return runCommand(m.t, cmd).status == 0
}

func TestFollowSignsForTokensWithPIN(t *testing.T) {
	t.Parallel()
	m, volume := signingMachine(t, true)
	if m.opensWithPIN(volume) {
		t.Fatal("it opens without a signature")
	}
	if r := m.follow(volume); r.status != 9 || !strings.Contains(r.stderr, "cryptenroll follow --tpm2-pcrs=4+7 /volume.img") {
		t.Errorf("without the PCRs: %d %s", r.status, r.stderr)
	}
	unsigned := content(t, filepath.Join(m.root, volume))
	if v := m.want(0, m.follow("--json=short", "--dry-run", "--tpm2-pcrs=4+7", volume)); !v.Changed || v.Volumes[0].Signatures != 1 {
		t.Errorf("--dry-run: %+v", v)
	}
	if string(unsigned) != string(content(t, filepath.Join(m.root, volume))) {
		t.Fatal("--dry-run changed the volume")
	}
	m.chip.Mark()
	v := m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", volume))
	if !v.Changed || v.Volumes[0].Signatures != 1 || len(m.slots(volume)) != 2 {
		t.Errorf("%+v", v)
	}
	for _, c := range m.chip.Commands() {
		if c.Code != 0x17e {
			t.Errorf("TPM command %#x", c.Code)
		}
	}
	if !m.opensWithPIN(volume) {
		t.Error("the running state does not open")
	}
	m.install("debian-6.12.1", "second initrd")
	m.install("debian-6.12.2", "second kernel")
	m.hook("")
	for _, args := range [][]string{{"--json=short", "--dry-run"}, {"--json=short"}} {
		if v := m.want(0, m.follow(args...)); v.Changed || v.Volumes[0].Signatures != 0 {
			t.Errorf("again, %s: %+v", args, v)
		}
	}
	if !m.opensWithPIN(volume) {
		t.Error("the signature of the running state is gone")
	}
	for _, entry := range []string{"debian-6.12.2", "debian-6.12.1"} {
		if m.start(entry); !m.opensWithPIN(volume) || m.opens(volume) {
			t.Errorf("%s does not open, or without the PIN", entry)
		}
	}
	m.remove("debian-6.12.2")
	m.want(0, m.follow("--json=short"))
	m.install("debian-6.12.2", "second kernel")
	if m.start("debian-6.12.2"); m.opensWithPIN(volume) {
		t.Error("the signature of a removed kernel was left")
	}
	m.want(0, m.follow("--json=short"))
	m.install("debian-6.12.3", "of the thief")
	m.start("debian-6.12.1")
	if v := m.want(12, m.follow("--json=short")); v.Changed {
		t.Errorf("signed for what came while the system was off: %+v", v)
	}
}

// TestFollowSignsForTokensWithLatch: the latch closes in each boot once the volume was
// opened, so that nobody has the secret that a new key would need.
func TestFollowSignsForTokensWithLatch(t *testing.T) {
	t.Parallel()
	m, volume := signingMachineWith(t, true, "--tpm2-latch")
	if m.opens(volume) {
		t.Fatal("it opens without a signature")
	}
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", volume))
	if !m.opens(volume) {
		t.Error("the running state does not open")
	}
	m.chip.Extend(15, "sha256", make([]byte, 32))
	if m.opens(volume) {
		t.Fatal("it opens with the latch closed")
	}
	m.install("debian-6.12.1", "second initrd")
	m.install("debian-6.12.2", "second kernel")
	m.hook("")
	for _, entry := range []string{"debian-6.12.2", "debian-6.12.1"} {
		if m.start(entry); !m.opens(volume) {
			t.Errorf("%s does not open", entry)
		}
		m.chip.Extend(15, "sha256", make([]byte, 32))
		if m.want(0, m.follow("--json=short")); m.opens(volume) {
			t.Errorf("%s opens with the latch closed", entry)
		}
	}
	if n := len(m.slots(volume)); n != 2 {
		t.Errorf("%d keyslots", n)
	}
}

func TestFollowUsesNoKeyThatOthersCanTake(t *testing.T) {
	t.Parallel()
	m, volume := signingMachine(t, false)
	if r := m.follow(volume); r.status != 9 || !strings.Contains(r.stderr, "is not on an encrypted volume") {
		t.Errorf("%d %s", r.status, r.stderr)
	}
	if err := os.Chmod(filepath.Join(m.root, "etc/luksmith/follow-key.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if r := m.follow(volume); r.status != 9 || !strings.Contains(r.stderr, "is not a file for root alone") {
		t.Errorf("%d %s", r.status, r.stderr)
	}
	if m.opensWithPIN(volume) {
		t.Error("it was signed")
	}
}

// TestFollowSignsForNoPCRsThatTheHeaderNames: a signature over PCR 0 alone would open
// the token in every system that this firmware starts.
func TestFollowSignsForNoPCRsThatTheHeaderNames(t *testing.T) {
	t.Parallel()
	m, volume := signingMachine(t, true)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", volume))
	editToken(t, filepath.Join(m.root, volume), func(m map[string]json.RawMessage) {
		m["tpm2_pubkey_pcrs"] = json.RawMessage("[0]")
		withoutMAC(m)
	})
	edited := content(t, filepath.Join(m.root, volume))
	m.install("debian-6.12.2", "second kernel")
	if r := m.follow(); r.status != 9 || !strings.Contains(r.stderr, "says that it takes signed values of PCR 0, and nobody has said so") {
		t.Errorf("%d %s%s", r.status, r.stdout, r.stderr)
	}
	m.hook("the next boot may ask for a passphrase")
	if string(edited) != string(content(t, filepath.Join(m.root, volume))) {
		t.Error("it was signed")
	}
}

// TestFollowSignsForTheNewestWhereNotAllHaveRoom: the running state and the newest
// entries keep theirs, and the others are named.
func TestFollowSignsForTheNewestWhereNotAllHaveRoom(t *testing.T) {
	t.Parallel()
	m, volume := signingMachine(t, true)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", volume))
	const count = 25
	for i := range count {
		m.install(fmt.Sprintf("debian-6.13.%d", i), fmt.Sprint(i))
	}
	for _, args := range [][]string{{"--dry-run"}, nil, nil} {
		v := m.want(12, m.follow(append(args, "--json=short")...))
		full := 0
		for _, s := range v.Volumes[0].States {
			if strings.Contains(s.Reason, "no room") {
				full++
			}
			if has := s.Slot != nil; has != (s.Reason == "") || (s.Running || s.Entry == "debian-6.13.24") && !has {
				t.Errorf("%+v", s)
			}
		}
		if full == 0 || full > count/2 {
			t.Errorf("%d entries of %d have no room", full, count)
		}
	}
	m.hook("will ask for a passphrase: the header has no room")
	if !m.opensWithPIN(volume) {
		t.Error("the running state does not open")
	}
	if m.start("debian-6.13.24"); !m.opensWithPIN(volume) {
		t.Error("the newest entry does not open")
	}
	for i := range count - 1 {
		m.remove(fmt.Sprintf("debian-6.13.%d", i))
	}
	m.want(0, m.follow("--json=short"))
	if m.start("debian-6.12.1"); !m.opensWithPIN(volume) {
		t.Error("there is room again, and the oldest entry does not open")
	}
}

// TestFollowMakesNoKeyWithoutPINWhereTheSigningKeyIsGone: that a volume is followed does
// not say that somebody wants a key which opens without a person.
func TestFollowMakesNoKeyWithoutPINWhereTheSigningKeyIsGone(t *testing.T) {
	t.Parallel()
	m, volume := signingMachine(t, true)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", volume))
	if err := os.Remove(filepath.Join(m.root, "etc/luksmith/follow-key.pem")); err != nil {
		t.Fatal(err)
	}
	m.install("debian-6.12.2", "second kernel")
	m.put("key", []byte("hunter2"))
	before := content(t, filepath.Join(m.root, volume))
	for _, args := range [][]string{{}, {"--tpm2-pcrs=4+7"}, {"--tpm2-pcrs=4+7", volume}, {"--tpm2-pcrs=7"}} {
		r := m.follow(append(args, "--unlock-key-file=/key")...)
		if r.status != 9 || !strings.Contains(r.stderr, "would open without a person") {
			t.Errorf("%q: %d %s%s", args, r.status, r.stdout, r.stderr)
		}
	}
	m.hook("the next boot may ask for a passphrase: ")
	if string(before) != string(content(t, filepath.Join(m.root, volume))) {
		t.Error("the volume was changed")
	}
	// Once somebody has said so, it holds.
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", "--tpm2-with-pin=no", "--unlock-key-file=/key", volume))
	m.install("debian-6.12.2", "and again")
	m.want(0, m.follow("--json=short"))
}

// TestFollowMakesNoKeyWithoutPINAgain: somebody has wiped the keys that open without a
// person, and wants a PIN now.
func TestFollowMakesNoKeyWithoutPINAgain(t *testing.T) {
	t.Parallel()
	m, volume := settled(t)
	cmd := m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=4+7", "--tpm2-with-pin=direct", "--wipe-slot=tpm2", volume)
	cmd.Env = append(cmd.Env, "NEWPIN=4711")
	if r := runCommand(t, cmd); r.status != 0 {
		t.Fatal(r.stderr)
	}
	m.put("key", []byte("hunter2"))
	if r := m.follow("--unlock-key-file=/key"); r.status != 9 || !strings.Contains(r.stderr, "would open without a person") {
		t.Errorf("%d %s%s", r.status, r.stdout, r.stderr)
	}
	if keys := m.slots(volume); len(keys) != 2 {
		t.Errorf("keyslots: %v", keys)
	}
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", "--tpm2-with-pin=no", "--unlock-key-file=/key"))
}
