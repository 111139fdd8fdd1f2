package main

import (
	"os/exec"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// foreignLines are arguments of attach for what is left to cryptsetup, and the command
// that the refusal names.
var foreignLines = map[string]struct {
	args []string
	want string
}{
	"plain, systemd's defaults": {[]string{"a", "/nonexistent", "-", "plain"},
		"plain is not supported here; run: cryptsetup open --type plain --cipher aes-cbc-essiv:sha256 --key-size 256 --hash ripemd160 /nonexistent a"},
	"plain with key file": {[]string{"a", "/nonexistent", "/k", "plain,cipher=aes-xts-plain64,size=512,hash=sha256,read-only,discard"},
		"run: cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 --key-file /k --readonly --allow-discards /nonexistent a"},
	"plain with everything": {[]string{"a", "/nonexistent", "-", "plain,cipher=c,size=128,hash=sha512,offset=8,skip=16,sector-size=4096,same-cpu-crypt,submit-from-crypt-cpus,no-read-workqueue,no-write-workqueue"},
		"run: cryptsetup open --type plain --cipher c --key-size 128 --hash sha512 --sector-size 4096 --offset 8 --skip 16 --perf-same_cpu_crypt --perf-submit_from_crypt_cpus --perf-no_read_workqueue --perf-no_write_workqueue /nonexistent a"},
	"swap": {[]string{"a b", "/nonexistent", "-", "swap"},
		"swap is not supported here; run: cryptsetup open --type plain --cipher aes-cbc-essiv:sha256 --key-size 256 --key-file /dev/urandom /nonexistent 'a b' && mkswap '/dev/mapper/a b'"},
	"tmp": {[]string{"a", "/nonexistent", "/dev/random", "tmp=xfs"},
		"tmp is not supported here; run: cryptsetup open --type plain --cipher aes-cbc-essiv:sha256 --key-size 256 --key-file /dev/random /nonexistent a && mkfs -t xfs /dev/mapper/a"},
	"tcrypt": {[]string{"a", "/nonexistent", "-", "tcrypt-hidden,veracrypt,veracrypt-pim=485,tcrypt-keyfile=/x,tcrypt-keyfile=/y"},
		"tcrypt is not supported here; run: cryptsetup open --type tcrypt --tcrypt-hidden --veracrypt --veracrypt-pim 485 --key-file /x --key-file /y /nonexistent a"},
	"tcrypt with a passphrase file": {[]string{"a", "/nonexistent", "/pass word", "tcrypt,tcrypt-system"},
		"run: head -n 1 '/pass word' | cryptsetup open --type tcrypt --tcrypt-system /nonexistent a"},
	"bitlk":  {[]string{"a", "UUID=1", "-", "bitlk"}, "bitlk is not supported here; run: cryptsetup open --type bitlk /dev/disk/by-uuid/1 a"},
	"fvault": {[]string{"a", "LABEL=my disk", "-", "fvault2"}, `run: cryptsetup open --type fvault2 '/dev/disk/by-label/my\x20disk' a`},
	"link": {[]string{"a", "/nonexistent", "/k", "link-volume-key=@u::%user:x,header=/h,key-slot=3,keyfile-offset=4,keyfile-size=5"},
		"link-volume-key= is not supported here; run: cryptsetup open --link-vk-to-keyring @u::%user:x --header /h --key-file /k --keyfile-offset 4 --keyfile-size 5 --key-slot 3 /nonexistent a"},
	"key on another device": {[]string{"a", "/nonexistent", "/key:LABEL=stick", "bitlk"},
		"run: mount -o ro /dev/disk/by-label/stick /mnt && cryptsetup open --type bitlk --key-file /mnt/key /nonexistent a"},
}

func TestModesOfCryptsetupAreRefusedWithItsCommand(t *testing.T) {
	t.Parallel()
	for name, tt := range foreignLines {
		e, err := entryOfArguments(tt.args)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = newJob(e, newGrammar())
		if err == nil || !strings.HasSuffix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\n got  %v\n want … %s", name, err, tt.want)
		}
	}
}

// tryCommands runs them: with a device that is not there cryptsetup's status is 4,
// with wrong options 1.
func tryCommands(t *testing.T, shell func(command string) *exec.Cmd, skip string) {
	t.Helper()
	for name, tt := range foreignLines {
		_, command, _ := strings.Cut(tt.want, "run: ")
		if name == skip || tt.args[1] != "/nonexistent" || command == "" || strings.HasPrefix(command, "mount") {
			continue
		}
		cmd := shell(command)
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != 4 || strings.Contains(string(out), "Usage") {
			t.Errorf("%s: %s: status %d\n%s", name, command, status, out)
		}
	}
}

func TestCryptsetupTakesTheCommands(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	const since27 = "link" // --link-vk-to-keyring
	tryCommands(t, func(command string) *exec.Cmd { return exec.Command("sh", "-c", command) }, since27)
}

func TestCryptsetup27TakesTheCommands(t *testing.T) {
	t.Parallel()
	tree := testenv.Systemd257(t)
	tryCommands(t, func(command string) *exec.Cmd { return tree.Command(nil, "/bin/sh", "-c", command) }, "")
}
