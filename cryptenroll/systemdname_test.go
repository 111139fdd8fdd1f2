package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// job is one call that scripts make of systemd-cryptenroll. $IMAGE, $KEY and $TPM
// in the arguments are the volume, a file with its passphrase and the TPM's name.
type job struct {
	name string
	env  []string
	args []string
}

// jobs are made one after the other on one volume. They cover what systemd's own
// test of cryptenroll does with a TPM, and what installers do around it.
var jobs = []job{
	{"list a new volume", nil, []string{"$IMAGE"}},
	{"enrol the TPM", nil, []string{"--unlock-key-file=$KEY", "--tpm2-device=$TPM", "--tpm2-public-key=", "$IMAGE"}},
	{"enrol the TPM again", nil, []string{"--unlock-key-file=$KEY", "--tpm2-device=$TPM", "--tpm2-public-key=", "$IMAGE"}},
	{"enrol the empty password", []string{"NEWPASSWORD="}, []string{"--unlock-key-file=$KEY", "--password", "$IMAGE"}},
	{"enrol a password", []string{"NEWPASSWORD=foo"}, []string{"--unlock-key-file=$KEY", "--password", "$IMAGE"}},
	{"enrol a recovery key", nil, []string{"--unlock-key-file=$KEY", "--recovery-key", "$IMAGE"}},
	{"enrol a TPM with PIN", []string{"PASSWORD=", "NEWPIN=123456"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-with-pin=true", "$IMAGE"}},
	{"list", nil, []string{"$IMAGE"}},
	{"wipe empty, abbreviated", []string{"PASSWORD=foo"}, []string{"$IMAGE", "--wipe=empty"}},
	{"wipe empty, nothing left", []string{"PASSWORD=foo"}, []string{"$IMAGE", "--wipe=empty"}},
	{"wipe a slot and a word", []string{"PASSWORD=foo"}, []string{"$IMAGE", "--wipe=empty,0"}},
	{"wipe several times the same", []string{"PASSWORD=foo", "NEWPASSWORD=foo"}, []string{"$IMAGE", "--wipe=1,1,empty,1,pkcs11,fido2,001,recovery,password", "--password"}},
	{"list without recovery", nil, []string{"$IMAGE"}},
	{"wipe all without a new key", nil, []string{"$IMAGE", "--wipe=all"}},
	{"wipe all with a new password", []string{"PASSWORD=foo", "NEWPASSWORD=foo"}, []string{"$IMAGE", "--password", "--wipe=all"}},
	{"unlock with a wrong key file", nil, []string{"--unlock-key-file=$KEY", "--recovery-key", "$IMAGE"}},
	{"unlock with a wrong password", []string{"PASSWORD="}, []string{"--recovery-key", "$IMAGE"}},
	{"recovery key by password", []string{"PASSWORD=foo"}, []string{"--recovery-key", "$IMAGE"}},
	{"FIDO2 option alone", nil, []string{"--fido2-with-client-pin=false", "$IMAGE"}},
	{"FIDO2 presence alone", nil, []string{"--fido2-with-user-presence=false", "$IMAGE"}},
	{"PCRs alone", nil, []string{"--tpm2-pcrs=8", "$IMAGE"}},
	{"PCR names alone", nil, []string{"--tpm2-pcrs=boot-loader-code+boot-loader-config", "$IMAGE"}},
	{"TPM by password", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "$IMAGE"}},
	{"recovery key by TPM", nil, []string{"--unlock-tpm2-device=$TPM", "--recovery-key", "$IMAGE"}},
	{"literal PCR", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-pcrs=12:sha256=F5A5FD42D16A20302798EF6ED309979B43003D2320D9F0E8EA9831A92759FB4B", "$IMAGE"}},
	{"literal PCR of now", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-pcrs=1,12:sha256=0000000000000000000000000000000000000000000000000000000000000000", "$IMAGE"}},
	{"seal key handle 0", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-seal-key-handle=0", "--tpm2-pcrs=2", "$IMAGE"}},
	{"seal key handle of the SRK", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-seal-key-handle=81000001", "--tpm2-pcrs=3", "$IMAGE"}},
	{"seal key handle that is none", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-seal-key-handle=0xffffffff", "--tpm2-pcrs=4", "$IMAGE"}},
	{"replace the TPM", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-pcrs=5", "--wipe-slot=tpm2", "$IMAGE"}},
	{"the same PCRs and wipe", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-pcrs=5", "--wipe-slot=tpm2", "$IMAGE"}},
	{"add a PIN", []string{"PASSWORD=foo", "NEWPIN=1234"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-with-pin=yes", "--tpm2-pcrs=6", "$IMAGE"}},
	{"wipe a slot that is not there", []string{"PASSWORD=foo"}, []string{"--wipe-slot=29", "$IMAGE"}},
	{"enrol and wipe a slot that is not there", []string{"PASSWORD=foo"}, []string{"--recovery-key", "--wipe-slot=29", "$IMAGE"}},
	{"wipe FIDO2 where there is none", nil, []string{"--wipe-slot=fido2", "$IMAGE"}},
	{"options before and after", []string{"PASSWORD=foo"}, []string{"--recovery-key", "$IMAGE", "--wipe-slot=recovery"}},
	{"no device", nil, []string{"--fido2-with-client-pin=false", "$IMAGE", "/tmp/foo"}},
	{"FIDO2 PIN that is not a boolean", nil, []string{"--fido2-with-client-pin=1234", "$IMAGE"}},
	{"presence that is not a boolean", nil, []string{"--fido2-with-user-presence=1234", "$IMAGE"}},
	{"verification that is not a boolean", nil, []string{"--fido2-with-user-verification=1234", "$IMAGE"}},
	{"TPM PIN that is not a boolean", nil, []string{"--tpm2-with-pin=1234", "$IMAGE"}},
	{"two enrolments", nil, []string{"--recovery-key", "--password", "$IMAGE"}},
	{"two enrolments, other order", nil, []string{"--password", "--recovery-key", "$IMAGE"}},
	{"password and FIDO2", nil, []string{"--password", "--fido2-device=auto", "$IMAGE"}},
	{"password and PKCS#11", nil, []string{"--password", "--pkcs11-token-uri=auto", "$IMAGE"}},
	{"password and TPM", nil, []string{"--password", "--tpm2-device=auto", "$IMAGE"}},
	{"two ways to unlock", nil, []string{"--unlock-fido2-device=auto", "--unlock-fido2-device=auto", "$IMAGE"}},
	{"a key file twice", nil, []string{"--unlock-key-file=$KEY", "--unlock-key-file=$KEY", "--recovery-key", "$IMAGE"}},
	{"the same enrolment twice", []string{"PASSWORD=foo"}, []string{"--recovery-key", "--recovery-key", "$IMAGE"}},
	{"two kinds of ways to unlock", nil, []string{"--unlock-fido2-device=auto", "--unlock-key-file=/tmp/unlock", "$IMAGE"}},
	{"unknown algorithm", nil, []string{"--fido2-credential-algorithm=es512", "$IMAGE"}},
	{"PCR of the key that is none", nil, []string{"--tpm2-public-key-pcrs=key", "$IMAGE"}},
	{"PCR that is none", nil, []string{"--tpm2-pcrs=key", "$IMAGE"}},
	{"PCR out of range", nil, []string{"--tpm2-pcrs=44+8", "$IMAGE"}},
	{"PCR by a wrong name", nil, []string{"--tpm2-pcrs=hello", "$IMAGE"}},
	{"wipe without value", nil, []string{"--wipe-slot", "$IMAGE"}},
	{"wipe of a large number", nil, []string{"--wipe-slot=10240000", "$IMAGE"}},
	{"FIDO2 from itself", nil, []string{"--fido2-device=auto", "--unlock-fido2-device=auto", "$IMAGE"}},
	{"unknown option", nil, []string{"--passwrd", "$IMAGE"}},
	{"ambiguous option", nil, []string{"--tpm2", "$IMAGE"}},
	{"abbreviated options", []string{"PASSWORD=foo"}, []string{"--recovery", "$IMAGE", "--wipe=recovery"}},
	{"TPM, words apart", []string{"PASSWORD=foo"}, []string{"$IMAGE", "--wipe-slot", "tpm2", "--tpm2-device", "$TPM", "--tpm2-public-key=", "--tpm2-pcrs", "0,2,4,7,9"}},
	{"TPM, the same PCRs and the device in between", []string{"PASSWORD=foo"}, []string{"--wipe-slot=tpm2", "$IMAGE", "--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-pcrs=0+2+4+7+9"}},
	{"option of cryptsetup", []string{"PASSWORD=foo"}, []string{"$IMAGE", "--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-pcrs=0+1+7", "--wipe-slot=tpm2", "--key-file", "$KEY"}},
	{"N for a number", []string{"PASSWORD=foo"}, []string{"--wipe-slot=N", "$IMAGE"}},
	{"number out of range", []string{"PASSWORD=foo"}, []string{"--wipe-slot=99", "$IMAGE"}},
	{"several kinds of slots", []string{"PASSWORD=foo"}, []string{"--wipe-slot=recovery,fido2,tpm2", "--recovery-key", "$IMAGE"}},
	{"no PCRs", []string{"PASSWORD=foo"}, []string{"--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-with-pin=no", "--tpm2-pcrs=", "$IMAGE"}},
	{"volume that is not there", []string{"PASSWORD=foo"}, []string{"--recovery-key", "$IMAGE.nosuch"}},
	{"list of a volume that is not there", nil, []string{"$IMAGE.nosuch"}},
	{"key file that is not there", nil, []string{"--unlock-key-file=$KEY.nosuch", "--recovery-key", "$IMAGE"}},
	{"PIN instead of the passphrase", []string{"PASSWORD=foo", "NEWPIN=123456"}, []string{"$IMAGE", "--wipe-slot=password,recovery", "--tpm2-device=$TPM", "--tpm2-public-key=", "--tpm2-with-pin=yes", "--tpm2-pcrs="}},
	{"list at the end", nil, []string{"$IMAGE"}},
}

// scriptLines are the lines that public scripts look for.
var scriptLines = regexp.MustCompile(`(?m)^(New .* enrolled as key slot \d+\.|Wiped slot \d+\.|No slots to remove selected\.|This PCR set is already enrolled, executing no operation\.|` +
	`Failed to wipe non-existent slot \d+, continuing\.|SLOT +TYPE.*|\s*\d+ (password|recovery|tpm2|fido2|pkcs11|other|empty) *)$`)

// TestSystemdsNameDoesSystemdsJobs makes every job with systemd 257 and with this
// command under its name, and compares exit status and the lines that scripts read.
// What differs would need a row
// in docs/compatibility.md that its users accept.
func TestSystemdsNameDoesSystemdsJobs(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	tree := testenv.Systemd257(t)
	theirs := newSide(t, tree.Dir(), func(env []string, args []string) *exec.Cmd {
		for i := range args {
			args[i] = strings.Replace(args[i], tree.Root, "", 1)
		}
		return tree.Command(env, "systemd-cryptenroll", args...)
	})
	theirs.dear = true
	ours := newSide(t, t.TempDir(), func(env []string, args []string) *exec.Cmd {
		args = append(args, "--compat=257") // as the peer; 252 may be installed
		if slices.Contains(args, "--password") {
			args = append(args, "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000")
		}
		cmd := alone(t, env, args...)
		cmd.Args[0] = "systemd-cryptenroll"
		return cmd
	})
	wanted := make([]result, len(jobs))
	var beside sync.WaitGroup
	beside.Go(func() { // each side has a volume and a TPM of its own
		for i, j := range jobs {
			wanted[i] = theirs.run(t, j)
		}
	})
	given := make([]result, len(jobs))
	for i, j := range jobs {
		given[i] = ours.run(t, j)
	}
	beside.Wait()
	for i, j := range jobs {
		want, got := wanted[i], given[i]
		if want.status != got.status || !slices.Equal(lines(want), lines(got)) {
			t.Errorf("%s: %q\nsystemd: %d %q\n%s\nhere: %d %q\n%s%s", j.name, j.args, want.status, lines(want), want.stderr, got.status, lines(got), got.stdout, got.stderr)
		}
	}
}

// side is one of the two programs, with a volume and a TPM of its own.
type side struct {
	image, key, tpm string
	command         func(env []string, args []string) *exec.Cmd
	dear            bool // its keyslots for passphrases take seconds to open
}

func newSide(t *testing.T, dir string, command func(env []string, args []string) *exec.Cmd) *side {
	t.Helper()
	s := &side{filepath.Join(dir, "v.img"), filepath.Join(dir, "key"), testenv.StartTPM(t, testenv.TPMOptions{TCP: true}).Device(), command, false}
	if err := os.Rename(luks2test.New(t).Path, s.image); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.key, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *side) run(t *testing.T, j job) result {
	t.Helper()
	args := make([]string, len(j.args))
	for i, a := range j.args {
		args[i] = strings.NewReplacer("$IMAGE", s.image, "$KEY", s.key, "$TPM", s.tpm).Replace(a)
	}
	r := runCommand(t, s.command(j.env, args))
	for _, value := range j.env {
		passphrase, ok := strings.CutPrefix(value, "NEWPASSWORD=")
		made := enrolledSlot.FindStringSubmatch(r.stdout + r.stderr)
		if ok && passphrase != "" && s.dear && made != nil {
			makeCheap(t, s.image, made[1], passphrase)
		}
	}
	return r
}

var enrolledSlot = regexp.MustCompile(`enrolled as key slot (\d+)\.`)

// makeCheap has a keyslot of systemd for a passphrase cost little, which it has no option
// for: each later job would take seconds to open the volume.
func makeCheap(t *testing.T, image, slot, passphrase string) {
	t.Helper()
	cmd := exec.Command("cryptsetup", "luksConvertKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-slot", slot, "--key-file=-", image)
	cmd.Stdin = strings.NewReader(passphrase)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("making keyslot %s cheap: %v\n%s", slot, err, out)
	}
}

// lines are what scripts look for in the output of a call.
func lines(r result) []string {
	found := scriptLines.FindAllString(r.stdout+r.stderr, -1)
	for i := range found {
		found[i] = strings.TrimSpace(found[i])
	}
	return found
}
