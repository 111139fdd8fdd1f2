package e2e

import (
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// The volumes of TestSecurityDevices, enrolled by real systemd-cryptenroll.
const (
	devicePIN = "1234"
	keySeed   = "the key of these tests"
)

// enrol adds a keyslot with systemd's program.
func enroll(t testing.TB, image string, env []string, args ...string) {
	t.Helper()
	if err := execute(append(env, "PASSWORD="+passphrase), nil, append([]string{"systemd-cryptenroll"}, append(args, image)...)...); err != nil {
		t.Fatal(err)
	}
}

// deviceVolumes are images for the security devices of one guest.
type deviceVolumes struct {
	tpm   *testenv.TPM
	plain string // TPM, PCR 7
	pin   string // TPM, PCR 7, PIN
	latch string // TPM, PCR 7 and PCR 15 with its first value
	fido2 string
}

func enrollVolumes(t *testing.T) *deviceVolumes {
	t.Helper()
	s := makeSample(t)
	v := &deviceVolumes{tpm: testenv.StartTPM(t, testenv.TPMOptions{TCP: true})}
	for _, image := range []*string{&v.plain, &v.pin, &v.latch} {
		*image = copyOf(t, s.image)
	}
	enrollTPM(t, v.tpm, v.plain, nil, "--tpm2-pcrs=7")
	enrollTPM(t, v.tpm, v.pin, []string{"NEWPIN=" + devicePIN}, "--tpm2-pcrs=7", "--tpm2-with-pin=yes")
	enrollTPM(t, v.tpm, v.latch, nil, "--tpm2-pcrs=7+15")
	v.tpm.Stop()
	v.fido2 = keyVolume(t)
	return v
}

// TestSecurityDevices opens volumes with a TPM and a FIDO2 key, as systemd enrolled
// them, and looks at what happens when that fails.
func TestSecurityDevices(t *testing.T) {
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, "swtpm", "systemd-cryptenroll")
	t.Parallel()
	v := enrollVolumes(t)
	u := newUnit(t, Boot(t, keyConfig(t, Config{TPM: v.tpm.StateDir()})))
	disk := func(t *testing.T, image string) string { return u.AddDisk(t, Disk{Path: image}) }

	t.Run("TPM", func(t *testing.T) {
		u.attach(t, "vol", disk(t, v.plain), "-", "tpm2-device=auto,headless")
		if r := u.report(t, "vol"); r.Opened.By != "tpm2 token" || *r.Opened.Keyslot != 3 || *r.Opened.Token != 1 || u.contents(t, "vol") != inside {
			t.Errorf("report: %+v", r)
		}
	})
	t.Run("TPM that no option names", func(t *testing.T) {
		u.attach(t, "vol", disk(t, v.plain), "-", "luksmith-token-only")
	})
	t.Run("PIN", func(t *testing.T) {
		agent := u.agent(t, "PIN of the TPM for vol:+0000", "PIN of the TPM for vol:+"+devicePIN)
		u.attach(t, "vol", disk(t, v.pin), "-", "tpm2-device=auto,token-timeout=5")
		if asked := agent.Wait(t).Stdout; strings.Count(asked, "Message=PIN of the TPM for vol") != 2 || u.report(t, "vol").Opened.By != "tpm2 token" {
			t.Errorf("asked: %s\n%+v", asked, u.report(t, "vol"))
		}
	})
	t.Run("PINs of several volumes", func(t *testing.T) { severalPINs(t, u, v.pin) })
	t.Run("PIN from the environment", func(t *testing.T) {
		r := u.Start(t, Command{Args: []string{u.path, "attach", "vol", disk(t, v.pin), "-", "tpm2-device=auto,headless"}, Env: []string{"PIN=" + devicePIN}}).Wait(t)
		t.Cleanup(func() { u.detach(t, "vol") })
		if r.Status != 0 {
			t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
		}
	})
	t.Run("latch", func(t *testing.T) {
		node := disk(t, v.latch)
		u.attach(t, "vol", node, "-", "tpm2-device=auto,luksmith-latch,headless")
		u.detach(t, "vol")
		agent := u.agent(t, "+"+passphrase)
		u.attach(t, "vol", node, "-", "tpm2-device=auto,luksmith-latch,password-cache=no")
		agent.Wait(t)
		if r := u.report(t, "vol"); len(r.Failures) != 1 || r.Failures[0].Exit != 7 || !strings.HasPrefix(r.Opened.By, "passphrase") {
			t.Errorf("a second unseal in the same boot: %+v", r)
		}
	})
	t.Run("supplanted volume", func(t *testing.T) {
		node := disk(t, v.plain)
		u.attach(t, "vol", node, "-", "tpm2-device=auto,headless")
		identity := u.report(t, "vol").Identity
		u.detach(t, "vol")
		if len(identity) != 64 {
			t.Fatalf("identity %q", identity)
		}
		u.attach(t, "vol", node, "-", "tpm2-device=auto,headless,fixate-volume-key="+identity)
		u.detach(t, "vol")
		// The attacker's: the same UUID and passphrase, another volume key.
		other := copyOf(t, v.plain)
		testenv.Run(t, "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
			"--uuid", makeSample(t).uuid, other, writeTemp(t, passphrase))
		evil := u.AddDisk(t, Disk{Path: other})
		agent := u.agent(t, "+"+passphrase)
		if r := u.Try(t, u.path, "attach", "vol", evil, "-", "password-cache=no,fixate-volume-key="+identity); r.Status != 9 || !strings.Contains(r.Stderr, "fixate-volume-key=") {
			t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
		}
		agent.Wait(t)
		if left := u.Shell(t, "ls /dev/mapper").Stdout; left != "control\n" {
			t.Errorf("mapped: %s", left)
		}
	})
	t.Run("FIDO2 key plugged in while asked", func(t *testing.T) {
		p := u.onTerminal(t, "attach", "vol", disk(t, v.fido2), "-", "fido2-device=auto,token-timeout=120,password-cache=no")
		p.Expect(t, `waiting for a security device \(fido2\) for up to 2m`, slow)
		p.Expect(t, "Please enter passphrase", slow)
		u.virtualKey(t, "--touch=1s")
		r := p.Wait(t)
		t.Cleanup(func() { u.detach(t, "vol") })
		if r.Status != 0 || u.report(t, "vol").Opened.By != "fido2 token" {
			t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
		}
		if left := u.Shell(t, "ls /run/systemd/ask-password").Stdout; left != "" {
			t.Errorf("the question is still there: %s", left)
		}
	})
}

// virtualKey plugs the key of enrolKey in until the end of the test.
func (u *unit) virtualKey(t *testing.T, args ...string) *SecurityKey {
	t.Helper()
	return u.PlugKey(t, append([]string{"--seed=" + keySeed}, args...)...)
}
