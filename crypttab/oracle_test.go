package crypttab_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens/all"
)

// verdict is what a parser says about an option string: how many complaints it
// ignores, or that it refuses.
type verdict struct {
	fatal    bool
	warnings int
}

func (v verdict) String() string {
	if v.fatal {
		return "refused"
	}
	return fmt.Sprintf("%d warnings", v.warnings)
}

func ours(options string) verdict {
	_, warnings, err := all.New().Grammar().ParseOptions(options)
	if err != nil {
		return verdict{fatal: true}
	}
	return verdict{warnings: len(warnings)}
}

// theirs judges the messages of `systemd-cryptsetup attach v /nonexistent - OPTS`.
// Options are read before the device is opened, so that reaching it means that they
// were taken.
func theirs(lines []string) verdict {
	v := verdict{fatal: true}
	for _, line := range lines {
		switch {
		case line == "" || strings.HasPrefix(line, "crypt_init() failed"):
		case strings.HasSuffix(line, "does not exist or access denied."):
			v.fatal = false
		default:
			v.warnings++
		}
	}
	if v.fatal {
		v.warnings = 0
	}
	return v
}

// documented returns the option strings that a section of docs/compatibility.md lists.
func documented(t *testing.T, title string) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "### "+title+"\n")
	if !ok {
		t.Fatalf("docs/compatibility.md lacks the section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n#")
	var list []string
	for _, m := range regexp.MustCompile("(?m)^\\| ``? ?(.*?) ?``? \\|").FindAllStringSubmatch(section, -1) {
		list = append(list, m[1])
	}
	return list
}

// The sections of docs/compatibility.md.
const (
	differFrom257 = "Option strings judged differently"
	differFrom262 = "Further strings that systemd 262 judges differently"
)

// recorded returns the strings that are judged otherwise than a release of systemd did
// when its verdicts were recorded.
func recorded(t *testing.T, release string) (differ []string) {
	t.Helper()
	table, err := os.ReadFile("testdata/option-verdicts.tsv")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(table)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || f[1] != release {
			continue
		}
		count++
		if a, b := ours(f[0]), theirs(strings.Split(f[3], "|")); a != b {
			differ = append(differ, f[0])
			t.Logf("%s: here %v, systemd %v", f[0], a, b)
		}
	}
	if count != 82 {
		t.Errorf("%d strings, want 82", count)
	}
	return differ
}

// compareDocumented wants the differences to be those that are documented, no more and
// no fewer. also may differ.
func compareDocumented(t *testing.T, differ, known, also []string) {
	t.Helper()
	for _, s := range differ {
		if !slices.Contains(known, s) && !slices.Contains(also, s) {
			t.Errorf("%s: the difference is not in docs/compatibility.md", s)
		}
	}
	for _, s := range known {
		if !slices.Contains(differ, s) {
			t.Errorf("%s: docs/compatibility.md lists a difference that is none", s)
		}
	}
}

func TestVerdictsOfSystemd257(t *testing.T) {
	t.Parallel()
	compareDocumented(t, recorded(t, "257"), documented(t, differFrom257), nil)
}

func TestVerdictsOfSystemd262(t *testing.T) {
	t.Parallel()
	compareDocumented(t, recorded(t, "262"), documented(t, differFrom262), documented(t, differFrom257))
}

// moreStrings go to the installed systemd, beyond the recorded ones.
var moreStrings = []string{`cipher=a\b`, `cipher=a\\b`, `cipher=a\`, "cipher=a,", ",", "luks,", "luks,,", "tries=010", "tries=0b11", "tries=0o7",
	"tries=4294967296", "tries=-0", "tries=3 ", "tries=0b-1", "tries=08", "key-slot=0x1", "timeout=1min 30s", "timeout=5.5", "timeout=infinity", "timeout=0", "timeout=-1",
	"timeout=1.", "timeout=1x", "timeout=99999999999999999999", "timeout=999999999999y", "timeout= 5 ", "timeout=5µs", "timeout=m", "timeout=+.5",
	"timeout=.5", "timeout=12.34 .56", "timeout=infinityx", "timeout=1,2", "keyfile-timeout", "tmp", "swap", "swap,tmp", "tmp=", "nofail", "fail", "auto",
	"pkcs11-uri=pkcs11:token=x", "pkcs11-uri=pkcs11:", "pkcs11-uri=pkcs11:foo", "pkcs11-uri=", "pkcs11-uri=pkcs11:a:", "pkcs11-uri=PKCS11:x", "fido2-cid=", "fido2-cid=YQ==",
	"fido2-cid=YQ", "fido2-cid=YR==", "fido2-cid=Y Q==", "fido2-device=", "tpm2-device=", "fido2-rp=", "header=", "size=", "sector-size=0", "keyfile-erase=yes",
	"keyfile-erase=maybe", "tcrypt-system", "integrity-algorithm=x", "readonly", "tcrypthidden", "no-read-workqueue=1", "tpm2-pin=x", "same-cpu-crypt",
	"luks,plain,offset=3", "skip=0x10,luks", "bitlk,skip=1", "password-echo=MASKED", "headless=YES", "token-timeout=1d2h", "tpm2-pcrs=23", "tpm2-pcrs=24",
	"tpm2-pcrs=-1", "tpm2-pcrs=0x7", "tpm2-pcrs= 7", `tpm2-pcrs=7\,8`, "tpm2-pcrs=07", "tpm2-pcrs=0b111+8", "tpm2-pcrs=-0", "tpm2-pcrs=11+7+11",
	"tpm2-pcrs=4294967303", "tpm2-pcrs=\"7\"", "tpm2-pcrs=7 ", "tpm2-signature=", "tpm2-signature=rel", "tpm2-device=foo", "tpm2-device=swtpm:port=x",
	"fido2-device=rel", "fido2-rp=", "fido2-rp=a b", "fido2-cid=Y\tQ==", "fido2-cid=YQ==YQ==", "fido2-cid==",
	"tcrypt-keyfile=/a,luks", "allow-discards=1"}

// digest is a value for a PCR of the bank sha256.
var digest = strings.Repeat("aB", 32)

// since257 are strings whose options or forms systemd 252 does not know.
var since257 = []string{"tpm2-pcrs=boot-loader-code+7", "tpm2-pcrs=7+", "tpm2-pcrs=+", "tpm2-pcrs=7:sha999", "tpm2-pcrs=7:sha1+8:sha256", "tpm2-pcrs=7=00",
	"tpm2-pcrs=all", "tpm2-pcrs=7:", "tpm2-pcrs=7:SHA256", "tpm2-pcrs=7:sha256=", "tpm2-pcrs=7:sha256=0X" + digest, "tpm2-pcrs=7:sha256=" + digest[:32] + " " + digest[32:],
	"tpm2-pcrs=7=" + digest, "tpm2-pcrs=7:sha256=" + digest[2:], "tpm2-pcrs=7:sha-256", "tpm2-pcrs=7: sha256", "tpm2-pcrs=7 + 8", "tpm2-pcrs=+7", "tpm2-pcrs=7++8",
	`tpm2-pcrs=7\,8:sha256`, "tpm2-pcrs=7:sha512+8:SHA512", "tpm2-pcrs=kernel-boot:sha1", "tpm2-pcrs=7:sha256:sha1", "tpm2-pcrs=24:sha1", "tpm2-pcrs=7:sha256=zz",
	"tpm2-measure-pcr=0xf", "tpm2-measure-pcr=system-identity", "tpm2-measure-pcr=0b1111", "tpm2-measure-pcr=24", "tpm2-measure-bank=sha-256", "tpm2-measure-bank=sha256:sha256",
	"tpm2-measure-bank=sha256::sha1", "tpm2-measure-bank=:", "tpm2-pcrlock=", "tpm2-pcrlock=rel",
	"tpm2-pcrs=PLATFORM-CODE", "tpm2-measure-pcr=true", "tpm2-measure-pcr=-1", "tpm2-measure-pcr=x", "tpm2-measure-pcr=",
	"tpm2-measure-bank=SHA256", "tpm2-measure-bank=sha256:sha1", "tpm2-measure-bank=", "link-volume-key=", "link-volume-key=@u::", "link-volume-key=::foo", "password-cache=1",
	"password-cache=READ-ONLY", "pkcs11-uri=auto,password-cache=no", "password-cache=yes,pkcs11-uri=auto", "fido2-up=", "veracrypt-pim=-1"}

func compareWith(t *testing.T, list []string, command func(options string) *exec.Cmd) {
	t.Helper()
	for _, s := range list {
		cmd := command(s)
		cmd.Env = append(cmd.Environ(), "SYSTEMD_LOG_LEVEL=info", "SYSTEMD_LOG_TARGET=console")
		out, _ := cmd.CombinedOutput() // always fails: the device does not exist
		if a, b := ours(s), theirs(strings.Split(string(out), "\n")); a != b {
			t.Errorf("%q: here %v, systemd %v:\n%s", s, a, b, out)
		}
	}
}

func TestOptionsLikeInstalledSystemd(t *testing.T) {
	t.Parallel()
	const program = "/lib/systemd/systemd-cryptsetup"
	if _, err := os.Stat(program); err != nil {
		testenv.Missing(t, program, "sh .ci/install-deps installs it")
	}
	compareWith(t, moreStrings, func(s string) *exec.Cmd { return exec.Command(program, "attach", "v", "/nonexistent", "-", s) })
}

func TestOptionsLikeSystemd257(t *testing.T) {
	t.Parallel()
	tree := testenv.Systemd257(t)
	compareWith(t, append(slices.Clone(moreStrings), since257...), func(s string) *exec.Cmd {
		return tree.Command(nil, "/usr/bin/systemd-cryptsetup", "attach", "v", "/nonexistent", "-", s)
	})
}
