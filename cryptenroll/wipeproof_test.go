package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// bench is what the enrolments of this test are made with: one of each device.
type bench struct {
	chip  *testenv.TPM
	env   []string
	fido  string // path of the FIDO2 key
	dir   string
	signs *devices
}

func newBench(t *testing.T) *bench {
	t.Helper()
	testenv.Need(t, "swtpm", "softhsm2-util", "cryptsetup")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install(t, "luksmith-pkcs11", exe)
	install(t, "luksmith-fido2", exe)
	_, env := newDesk(t)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	path, err := fidotest.New(fidotest.Config{PIN: desk.PIN, Product: "Software Key"}).Terminal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{chip: testenv.StartTPM(t, testenv.TPMOptions{}), fido: path, dir: t.TempDir(), signs: &devices{t: t}}
	b.env = append(env, "PASSWORD="+luks2test.Passphrase, "PIN="+desk.PIN, "NEWPIN="+desk.PIN, "NEWPASSWORD=another passphrase")
	if err := b.signs.sign(filepath.Join(b.dir, "sig.json"), 11, extended(nil)); err != nil {
		t.Fatal(err)
	}
	b.write(t, "srk.pub", string(content(t, "../tokens/tpm2/testdata/srk.tpm2b_public")))
	b.write(t, "salt", strings.Repeat("s", 32))
	return b
}

func (b *bench) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// enroll runs the command by a name. @TPM@, @FIDO@ and @DIR@ in an argument stand for
// those of the bench.
func (b *bench) enroll(t *testing.T, name string, args ...string) result {
	t.Helper()
	args = slices.Clone(args)
	for i, arg := range args {
		args[i] = strings.NewReplacer("@TPM@", b.chip.Device(), "@FIDO@", b.fido, "@DIR@", b.dir).Replace(arg)
	}
	cmd := alone(t, b.env, args...)
	cmd.Args[0] = name
	return runCommand(t, cmd)
}

// opens asks cryptsetup whether a passphrase opens a volume.
func opens(t *testing.T, path, passphrase string) bool {
	t.Helper()
	cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-file=-", path)
	cmd.Stdin = strings.NewReader(passphrase)
	return cmd.Run() == nil
}

const otherValue = "--tpm2-pcrs=7:sha256=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// TestWipeNeedsAKeyThatCameBack goes through every type of token and every reason
// why its device may not have given the key back: then nothing is wiped that opened
// the volume, and cryptsetup still opens it.
func TestWipeNeedsAKeyThatCameBack(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name   string
		before []string // an enrolment ahead
		args   []string
		proven bool
	}{
		{"passphrase", nil, []string{"--password", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"}, true},
		{"recovery key", nil, []string{"--recovery-key"}, true},
		{"TPM", nil, []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7"}, true},
		{"TPM with PIN", nil, []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7", "--tpm2-with-pin=direct"}, true},
		{"TPM in another state", nil, []string{"--tpm2-device=@TPM@", otherValue}, false},
		{"TPM without signature", nil, []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=", "--tpm2-public-key=@DIR@/sig.json.pem"}, false},
		{"TPM with signature", nil, []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=", "--tpm2-public-key=@DIR@/sig.json.pem", "--tpm2-signature=@DIR@/sig.json"}, true},
		{"TPM offline", nil, []string{"--tpm2-device-key=@DIR@/srk.pub", "--compat=257", "--tpm2-pcrs=7:sha256=" + strings.Repeat("00", 32)}, false},
		{"TPM with closed latch", nil, []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7", "--tpm2-latch"}, false},
		{"TPM, enrolled already", []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7"}, []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7"}, true},
		{"TPM, enrolled already for another state", []string{"--tpm2-device=@TPM@", otherValue}, []string{"--tpm2-device=@TPM@", otherValue}, false},
		{"TPM, other PIN", []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7", "--tpm2-with-pin=direct"}, []string{"--tpm2-device=@TPM@", "--tpm2-change-pin"}, true},
		{"TPM, other PIN without signature", []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=", "--tpm2-public-key=@DIR@/sig.json.pem", "--tpm2-with-pin=direct"},
			[]string{"--tpm2-device=@TPM@", "--tpm2-change-pin"}, false},
		{"FIDO2", nil, []string{"--fido2-device=@FIDO@"}, true},
		{"FIDO2, parameters not in the header", nil, []string{"--fido2-device=@FIDO@", "--fido2-parameters-in-header=no", "--fido2-salt-file=@DIR@/salt"}, false},
		{"FIDO2, enrolled already", []string{"--fido2-device=@FIDO@"}, []string{"--fido2-device=@FIDO@"}, false},
		{"PKCS#11", nil, []string{"--pkcs11-token-uri=pkcs11:object=rsa"}, true},
		{"PKCS#11, certificate only", nil, []string{"--pkcs11-token-uri=pkcs11:object=rsa", "--pkcs11-no-verify"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "TPM with closed latch" {
				b.chip.Extend(15, "sha256", make([]byte, 32))
			}
			b.wipes(t, c.before, c.args, c.proven)
		})
	}
}

// wipes tries one enrolment with several wipes under both names.
func (b *bench) wipes(t *testing.T, before, args []string, proven bool) {
	for i, wipe := range []string{"password", "0", "all", "recovery,password", "recovery"} {
		name := []string{"cryptenroll", "systemd-cryptenroll"}[i%2]
		v := luks2test.New(t)
		recovery := v.Enroll(t, "of paper", luks2.Token{Type: "systemd-recovery"})
		if before != nil {
			if r := b.enroll(t, "cryptenroll", append(before, v.Path)...); r.status != 0 {
				t.Fatalf("%q: %s", before, r.stderr)
			}
		}
		keeps := wipe == "recovery" // then the passphrase opened the volume and stays
		call := append(append([]string{}, args...), "--wipe-slot="+wipe, v.Path)
		r := b.enroll(t, name, call...)
		switch want := map[string]int{"cryptenroll": 9, "systemd-cryptenroll": 1}[name]; {
		case proven || keeps && !strings.Contains(r.stderr, "enrolled already"):
			if r.status != 0 || opens(t, v.Path, luks2test.Passphrase) != keeps {
				t.Errorf("%s %q: status %d, passphrase opens: %t\n%s", name, call, r.status, opens(t, v.Path, luks2test.Passphrase), r.stderr)
			}
			continue
		case r.status != want || !opens(t, v.Path, luks2test.Passphrase) || !opens(t, v.Path, "of paper"):
			t.Errorf("%s %q: status %d, want %d, recovery keyslot %d\n%s", name, call, r.status, want, recovery, r.stderr)
		}
		if dry := b.enroll(t, name, append(call, "--dry-run")...); dry.status == 0 && !strings.Contains(dry.stdout, "opens the volume") {
			t.Errorf("%q --dry-run does not say on what it depends:\n%s", call, dry.stdout)
		}
		if strings.Contains(r.stderr, "enrolled already") || wipe == "all" {
			continue
		}
		if r := b.enroll(t, name, append(call, "--force-unproven-wipe")...); r.status != 0 || opens(t, v.Path, luks2test.Passphrase) {
			t.Errorf("%q --force-unproven-wipe: status %d\n%s", call, r.status, r.stderr)
		}
	}
}
