package main

import (
	"bytes"
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
	b.write(t, "paper", ofPaper)
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

// ofPaper opens keyslot 1 of the volumes here, a recovery key.
const ofPaper = "of paper"

// proofRow is an enrolment, and whether the key that it makes comes back in the call.
type proofRow struct {
	name   string
	before []string // an enrolment ahead, keyslot 2
	opener int      // keyslot that opens the volume, by args if it is not 0
	args   []string
	proven bool
	// ignored is a key that programs try only when it is named: not even
	// --force-unproven-wipe takes it for the last way in.
	ignored bool
	absent  bool // there is no such device
}

var (
	chipPCR7  = []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7"}
	chipOther = []string{"--tpm2-device=@TPM@", otherValue}
	chipPIN   = []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=7", "--tpm2-with-pin=direct"}
	unsigned  = []string{"--tpm2-device=@TPM@", "--tpm2-pcrs=", "--tpm2-public-key=@DIR@/sig.json.pem"}
	card      = []string{"--pkcs11-token-uri=pkcs11:object=rsa"}
	cardEC    = []string{"--pkcs11-token-uri=pkcs11:object=ec", "--compat=257"}
	cheapPass = []string{"--password", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"}
	byPaper   = []string{"--unlock-key-file=@DIR@/paper"}
	ignored   = []string{"--priority=ignore"}
)

// proofRows are every type of token, and every reason why its device may or may not
// have given the key back.
var proofRows = []proofRow{
	{name: "passphrase", args: cheapPass, proven: true},
	{name: "passphrase, tried only when named", args: slices.Concat(cheapPass, ignored), ignored: true},
	{name: "recovery key", args: []string{"--recovery-key"}, proven: true},
	{name: "recovery key, tried only when named", args: slices.Concat([]string{"--recovery-key"}, ignored), ignored: true},
	{name: "recovery key, unlocked by key file", args: slices.Concat([]string{"--recovery-key"}, byPaper), opener: 1, proven: true},

	{name: "TPM", args: chipPCR7, proven: true},
	{name: "TPM, tried only when named", args: slices.Concat(chipPCR7, ignored), ignored: true},
	{name: "TPM with PIN", args: chipPIN, proven: true},
	{name: "TPM in another state", args: chipOther},
	{name: "TPM in another state, unlocked by key file", args: slices.Concat(chipOther, byPaper), opener: 1},
	{name: "TPM in another state, unlocked by the TPM", before: chipPCR7, args: slices.Concat(chipOther, []string{"--unlock-tpm2-device=@TPM@"}), opener: 2},
	{name: "TPM without signature", args: unsigned},
	{name: "TPM with signature", args: slices.Concat(unsigned, []string{"--tpm2-signature=@DIR@/sig.json"}), proven: true},
	{name: "TPM offline", args: []string{"--tpm2-device-key=@DIR@/srk.pub", "--compat=257", "--tpm2-pcrs=7:sha256=" + strings.Repeat("00", 32)}},
	{name: "TPM with closed latch", args: slices.Concat(chipPCR7, []string{"--tpm2-latch"})},
	{name: "TPM, enrolled already", before: chipPCR7, args: chipPCR7, proven: true},
	{name: "TPM, enrolled already for another state", before: chipOther, args: chipOther},
	{name: "TPM, enrolled already, tried only when named", before: slices.Concat(chipPCR7, ignored), args: chipPCR7, ignored: true},
	{name: "TPM, other PIN", before: chipPIN, args: []string{"--tpm2-device=@TPM@", "--tpm2-change-pin"}, proven: true},
	{name: "TPM, other PIN without signature", before: slices.Concat(unsigned, []string{"--tpm2-with-pin=direct"}),
		args: []string{"--tpm2-device=@TPM@", "--tpm2-change-pin"}},

	{name: "FIDO2", args: []string{"--fido2-device=@FIDO@"}, proven: true},
	{name: "FIDO2, tried only when named", args: slices.Concat([]string{"--fido2-device=@FIDO@"}, ignored), ignored: true},
	{name: "FIDO2, salt in a file", args: []string{"--fido2-device=@FIDO@", "--fido2-salt-file=@DIR@/salt"}, proven: true},
	{name: "FIDO2, parameters not in the header", args: []string{"--fido2-device=@FIDO@", "--fido2-parameters-in-header=no", "--fido2-salt-file=@DIR@/salt"}},
	{name: "FIDO2, enrolled already", before: []string{"--fido2-device=@FIDO@"}, args: []string{"--fido2-device=@FIDO@"}},
	{name: "FIDO2, once more", before: []string{"--fido2-device=@FIDO@"}, args: []string{"--fido2-device=@FIDO@", "--allow-duplicate"}, proven: true},

	{name: "PKCS#11", args: card, proven: true},
	{name: "PKCS#11, elliptic curve", args: cardEC, proven: true},
	{name: "PKCS#11, tried only when named", args: slices.Concat(card, ignored), ignored: true},
	{name: "PKCS#11, certificate only", args: slices.Concat(card, []string{"--pkcs11-no-verify"})},
	{name: "PKCS#11, certificate only, unlocked by key file", args: slices.Concat(card, []string{"--pkcs11-no-verify"}, byPaper), opener: 1},
	{name: "PKCS#11, enrolled already", before: card, args: card, proven: true},
	{name: "PKCS#11, enrolled already, certificate only", before: card, args: slices.Concat(card, []string{"--pkcs11-no-verify"})},
	{name: "PKCS#11, not plugged in", args: []string{"--pkcs11-token-uri=pkcs11:token=nobody;object=rsa"}, absent: true},
	{name: "PKCS#11, certificate only, not plugged in", args: []string{"--pkcs11-token-uri=pkcs11:token=nobody;object=rsa", "--pkcs11-no-verify"}, absent: true},

	{name: "combination", args: slices.Concat([]string{"--all-of=tpm2,passphrase"}, chipPCR7), proven: true},
	{name: "combination in another state", args: slices.Concat([]string{"--all-of=tpm2,passphrase"}, chipOther)},
	{name: "any two, one of them in doubt", args: slices.Concat([]string{"--any=2", "--of=tpm2,pkcs11,passphrase", "--pkcs11-no-verify"}, chipPCR7, card)},
}

// TestWipeNeedsAKeyThatCameBack goes through every type of token and every reason
// why its device may not have given the key back: then nothing is wiped that opened
// the volume, and cryptsetup still opens it.
func TestWipeNeedsAKeyThatCameBack(t *testing.T) {
	b := newBench(t)
	for i, row := range proofRows {
		t.Run(row.name, func(t *testing.T) {
			if row.name == "TPM with closed latch" {
				b.chip.Extend(15, "sha256", make([]byte, 32))
			}
			for k, wipe := range []string{"password", "0", "all", "recovery,password", "recovery", row.kind() + ",password", "empty,label:old," + row.kind() + ",0,1"} {
				for n, name := range []string{"cryptenroll", "systemd-cryptenroll"} {
					if testenv.EndToEnd() || (i+k+n)%3 == 0 { // a third of them is enough between two make e2e
						b.wipes(t, &row, wipe, name, []int{9, 1}[n])
					}
				}
			}
		})
	}
}

// volume makes one with a passphrase, a recovery key and what the row has before.
func (b *bench) volume(t *testing.T, row *proofRow) *luks2test.Volume {
	t.Helper()
	v := luks2test.New(t)
	v.Enroll(t, ofPaper, luks2.Token{Type: "systemd-recovery", Raw: []byte(`{"luksmith":{"label":"old"}}`)})
	if row.before != nil {
		if r := b.enroll(t, "cryptenroll", append(slices.Clone(row.before), v.Path)...); r.status != 0 {
			t.Fatalf("%q: %s", row.before, r.stderr)
		}
	}
	return v
}

// wiped tells which of the three keyslots ahead of the call a --wipe-slot= selects.
func (row *proofRow) wiped(wipe string, slot int) bool {
	words := [][]string{{"all", "password", "0"}, {"all", "recovery", "1", "label:old"}, {"all", row.kind()}}[slot]
	return slices.ContainsFunc(strings.Split(wipe, ","), func(word string) bool { return slices.Contains(words, word) })
}

// kind is the word for the row's own type in --wipe-slot=.
func (row *proofRow) kind() string {
	for _, k := range [][2]string{{"combination", "combo"}, {"any", "combo"}, {"pass", "password"}, {"recovery", "recovery"}, {"TPM", "tpm2"}, {"FIDO2", "fido2"}} {
		if strings.HasPrefix(row.name, k[0]) {
			return k[1]
		}
	}
	return "pkcs11"
}

// notEnrolled are the words of calls that end because there is nothing to enrol.
func notEnrolled(r result) bool {
	return strings.Contains(r.stderr, "enrolled already") || strings.Contains(r.stderr, "not present")
}

// wipes tries one enrolment with one wipe under one name.
func (b *bench) wipes(t *testing.T, row *proofRow, wipe, name string, refused int) {
	t.Helper()
	v := b.volume(t, row)
	before := content(t, v.Path)
	call := append(slices.Clone(row.args), "--wipe-slot="+wipe, v.Path)
	r := b.enroll(t, name, call...)
	stays := !row.wiped(wipe, row.opener) // then it is the proof
	switch {
	case row.proven || stays && !notEnrolled(r):
		if r.status != 0 || opens(t, v.Path, luks2test.Passphrase) == row.wiped(wipe, 0) || opens(t, v.Path, ofPaper) == row.wiped(wipe, 1) {
			t.Errorf("%s %q: status %d, passphrase opens: %t\n%s", name, call, r.status, opens(t, v.Path, luks2test.Passphrase), r.stderr)
		}
		b.comesBack(t, row, v.Path, r)
		return
	case r.status == 0 || r.status != refused && !notEnrolled(r) || !bytes.Equal(before, content(t, v.Path)) || !opens(t, v.Path, luks2test.Passphrase):
		t.Errorf("%s %q: status %d, want %d, header changed: %t\n%s", name, call, r.status, refused, !bytes.Equal(before, content(t, v.Path)), r.stderr)
	}
	if dry := b.enroll(t, name, append(call, "--dry-run")...); dry.status == 0 && !notEnrolled(r) && !strings.Contains(dry.stdout, "opens the volume") {
		t.Errorf("%s %q --dry-run does not say on what it depends:\n%s", name, call, dry.stdout)
	}
	if notEnrolled(r) || wipe == "all" {
		return
	}
	forced := !row.absent && !(row.ignored && row.wiped(wipe, 1)) // the recovery key is another way in
	if r := b.enroll(t, name, append(call, "--force-unproven-wipe")...); (r.status == 0) != forced || opens(t, v.Path, luks2test.Passphrase) == (forced && row.wiped(wipe, 0)) {
		t.Errorf("%s %q --force-unproven-wipe: status %d\n%s", name, call, r.status, r.stderr)
	}
}

// comesBack has what a proven row enrolled open the volume in a call of its own.
func (b *bench) comesBack(t *testing.T, row *proofRow, path string, r result) {
	t.Helper()
	if !row.proven {
		return
	}
	switch first := row.args[0]; {
	case first == "--password":
		if !opens(t, path, "another passphrase") {
			t.Errorf("%s: the passphrase does not open", row.name)
		}
	case first == "--recovery-key":
		if !opens(t, path, strings.TrimSpace(r.stdout)) {
			t.Errorf("%s: what was printed does not open: %q", row.name, r.stdout)
		}
	default:
		with := map[string][]string{"--tpm2": {"--unlock-tpm2-device=@TPM@", "--tpm2-signature=@DIR@/sig.json"}, "--fido": {"--unlock-fido2-device=@FIDO@"}, "--pkcs": {"--unlock-pkcs11-uri=auto"},
			"--all-": {"--unlock-combo=auto", "--unlock-tpm2-device=@TPM@"}}[first[:6]]
		env := b.env
		b.env = append(slices.Clone(env), "PASSWORD=another passphrase")
		defer func() { b.env = env }()
		if r := b.enroll(t, "cryptenroll", append(append([]string{"test"}, with...), path)...); r.status != 0 {
			t.Errorf("%s: %s", row.name, r.stderr)
		}
	}
}
