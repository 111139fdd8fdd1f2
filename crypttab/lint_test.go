package crypttab

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// disk is a file system for Stat.
var disk = fstest.MapFS{
	"good.key": {Mode: 0o600},

	"dev/disk/by-partuuid/0a1b2c3d-01": {Mode: fs.ModeDevice | 0o600},

	"open.key":  {Mode: 0o644},
	"folder":    {Mode: fs.ModeDir | 0o700},
	"fifo":      {Mode: fs.ModeNamedPipe | 0o600},
	"socket":    {Mode: fs.ModeSocket | 0o600},
	"crypttab":  {Mode: 0o644},
	"crypttabw": {Mode: 0o646},
}

func lint(t *testing.T, path, text string) []Finding {
	t.Helper()
	f, err := Parse(strings.NewReader(text), path)
	if err != nil {
		t.Fatal(err)
	}
	return Lint(f, &LintOptions{
		Grammar: toys,
		Stat:    func(path string) (fs.FileInfo, error) { return disk.Stat(strings.TrimPrefix(path, "/")) },
		Facts: func(e *Entry, _ *Options) (*VolumeFacts, error) {
			switch e.Source.Value {
			case "/dev/toy":
				return &VolumeFacts{LUKS: 2, Keyslots: []int{0, 1}, TokenTypes: []string{"test-toy"}, PINTypes: []string{"test-toy"}}, nil
			case "/dev/bare", "/dev/link":
				return &VolumeFacts{LUKS: 2, Keyslots: []int{0}, Device: "/dev/bare"}, nil
			case "/dev/ext4":
				return nil, ErrNoVolume
			case "0A1B2C3D-01", "elsewhere":
				return nil, fs.ErrNotExist
			}
			return nil, errors.New("no such device")
		},
	})
}

func TestLint(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a /dev/bare":                                       "",
		"a /dev/bare /good.key luks,discard":                "",
		"a /dev/toy - toy-device=auto,token-timeout=5":      "",
		"a /dev/bare\na /dev/toy":                           `error:2: name: "a" is already defined in line 1`,
		"a/b /dev/bare":                                     "error:1: name: invalid value",
		"a sda1":                                            `error:1: device: "sda1" is neither absolute`,
		"a /dev/bare - luks discard":                        `warning:1: line: ignoring "discard"`,
		"a /dev/bare - discards":                            `warning:1: options: discards: unknown option, did you mean "discard"`,
		"a /dev/bare - header=rel":                          "error:1: options: header=rel: ",
		"a /dev/bare - swap,tmp":                            "error:1: options: both swap and tmp",
		"a /dev/bare - plain":                               "error:1: options: plain without cipher",
		"a /dev/bare - bitlk":                               "warning:1: options: bitlk: attach-all does not open it; systemd or cryptsetup does",
		"a /dev/bare - cipher=aes":                          "warning:1: options: options of plain volumes",
		"a /dev/bare - headless":                            "warning:1: options: headless: no key file",
		"a /dev/bare /key:LABEL=x keyfile-erase":            "warning:1: options: keyfile-erase: the key file stays",
		"a /dev/toy - luksmith-token-only,toy-device=auto":  "",
		"a /dev/bare /good.key headless,verify":             "warning:1: options: verify: nobody is asked",
		"a /dev/bare - luksmith-token-only,toy-device=auto": "error:1: options: toy-device=: the header of /dev/bare has no test-toy token",
		"a /dev/bare - luksmith-token-only,card=YQ==":       "error:1: options: card=",
		"a /dev/toy - luksmith-token-only":                  "warning:1: options: luksmith-token-only: no token option",
		"a /dev/bare - token-timeout=3":                     "warning:1: options: token-timeout=: no token option",
		"a /dev/bare - toy-pin=yes":                         "warning:1: options: toy-pin=BOOL: no effect without toy-device",
		"a /dev/bare /good.key toy-name=x,card=auto":        "warning:1: options: toy-name=NAME: no effect without card",
		"a /dev/bare - card=YQ==":                           "error:1: options: card=URI|auto: the third field",
		"a /dev/toy - toy-device=unusable":                  "warning:1: options: toy-device=unusable: invalid value, so this way",
		"a /dev/bare - keyfile-size=3":                      "warning:1: options: no key file is named",
		"a /dev/bare - tpm2-measure-bank=sha256":            "warning:1: options: tpm2-measure-bank=",
		"a /dev/bare - toy-device=auto":                     "error:1: options: toy-device=: the header of /dev/bare has no test-toy token",
		"a /dev/bare - key-slot=7":                          "error:1: options: key-slot=: keyslot 7 of /dev/bare is empty",
		"a /dev/gone":                                       "note:1: device: the header was not checked: no such device",
		"a /dev/bare /absent":                               "warning:1: key: /absent does not exist now",
		"a /dev/bare /folder":                               "error:1: key: /folder is a directory",
		"a /dev/bare /fifo":                                 "error:1: key: /fifo is a FIFO",
		"a /dev/bare /open.key":                             "warning:1: key: /open.key can be read by others: mode 0644",
		"a /dev/bare rel.key":                               `error:1: key: "rel.key" is not absolute`,
		"a /dev/bare /socket keyfile-offset=3":              "warning:1: key: /socket is a socket",
		"a /dev/bare - nofail,noauto":                       "note:1: options: nofail, noauto: for systemd's generator",
		"a /dev/bare - keyscript=/x":                        "warning:1: options: keyscript=/x: a program",
		"a /dev/bare - try-empty-password=perhaps":          "warning:1: options: try-empty-password=perhaps: invalid value",
		"a /dev/bare /k:LABEL=stick keyfile-timeout=3":      "",
		"a /dev/bare - toy-device=auto,toy-name=bad":        "error:1: options: toy-name=bad: ",
	} {
		var got []string
		for _, f := range lint(t, "/crypttab", text) {
			got = append(got, string(f.Level)+strings.TrimPrefix(f.Error(), "/crypttab"))
		}
		if want == "" && len(got) == 0 {
			continue
		}
		// What every plain or token-only line says is not the point of its case.
		for _, also := range []string{"warning:1: options: swap: attach-all", "warning:1: options: plain: attach-all", "error:1: options: luksmith-token-only: the header"} {
			if len(got) == 2 && strings.HasPrefix(got[1], also) {
				got = got[:1]
			}
		}
		if want == "" || len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%q:\n got  %q\n want %q", text, got, want)
		}
	}
	if got := lint(t, "/crypttabw", ""); len(got) != 1 || !errors.Is(got[0], ErrUntrusted) {
		t.Errorf("writable crypttab: %v", got)
	}
}

func FuzzLint(f *testing.F) {
	f.Add("a /dev/b /k:LABEL=x luks,discard\n#c\nb UUID=1 - tries=0x3\\,4 extra\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse(strings.NewReader(text), "f")
		if err != nil {
			return
		}
		for _, finding := range Lint(file, &LintOptions{Stat: func(string) (fs.FileInfo, error) { return nil, fs.ErrNotExist }}) {
			if finding.Line == 0 || finding.Error() == "" {
				t.Errorf("%q: finding without place or text: %v", text, finding)
			}
		}
	})
}

// TestLintNamesTheSpellingThatWorks: these lines were passed over, or were a warning
// beside which the status was 0.
func TestLintNamesTheSpellingThatWorks(t *testing.T) {
	t.Parallel()
	const id = "01234567-89ab-cdef-0123-456789abcdef"
	for text, want := range map[string]string{
		"\ufeff\na /dev/bare":                              "error:1: line: the file begins with a byte order mark",
		"\ufeff# comment":                                  "error:1: line: the file begins with a byte order mark",
		"a UUID=0A1B2C3D-01":                               "error:1: device: UUID=0A1B2C3D-01 is not there, PARTUUID=0A1B2C3D-01 is: write that",
		"a /dev/bare /none.key keyscript=x":                "warning:1: options: keyscript=x: a program named in crypttab is never run",
		"\ufeffa /dev/bare":                                "error:1: line: the file begins with a byte order mark",
		"a\u200b /dev/bare":                                "error:1: line: the invisible character U+200B",
		"a\u00a0/dev/bare - luks":                          "error:1: line: the invisible character U+00A0",
		"a /dev/bare\u00a0none luks":                       "error:1: line: the invisible character U+00A0",
		"a":                                                "error:1: line: no device",
		"a /dev/bare luks,discard":                         "error:1: key: \"luks,discard\" stands where the key file belongs, so the options are not read; write: a /dev/bare none luks,discard",
		"a /dev/bare discard":                              "error:1: key: \"discard\" stands where",
		"a /dev/bare – luks":                               "error:1: key: \"–\" is not the dash",
		"a PARTLABEL=\"my data\"":                          `error:1: line: quotes do not hold fields together; write PARTLABEL=my\x20data,`,
		"\"my a\" /dev/bare":                               `error:1: line: quotes do not hold fields together; write my\x20a,`,
		"a LABEL='x y z' - luks":                           `error:1: line: quotes do not hold fields together; write LABEL=x\x20y\x20z,`,
		"a ID=ata-x - luks":                                "error:1: device: \"ID=ata-x\" is neither absolute nor a tag such as UUID=; write /dev/disk/by-id/ata-x",
		"a " + id + " - luks":                              "error:1: device: \"" + id + "\" is neither absolute nor a tag such as UUID=; write UUID=" + id,
		"a uuid=x - luks":                                  "error:1: device: \"uuid=x\" is neither absolute nor a tag such as UUID=; write UUID=x",
		"a UUID= - luks":                                   "error:1: device: invalid value: there is nothing behind UUID=",
		"a PARTUUID=\"\" - luks":                           "error:1: device: invalid value: there is nothing behind PARTUUID=",
		"a /dev/bare - header=LABEL=x":                     "error:1: options: header=LABEL=x: invalid value: a header is named by its path; write header=/dev/disk/by-label/x",
		"a /dev/bare - header=/gone":                       "error:1: options: header=: /gone does not exist",
		"a /dev/bare - header=/folder":                     "error:1: options: header=: /folder is a directory",
		"a /dev/ext4":                                      "error:1: device: nothing to attach: not a LUKS volume",
		"a /dev/bare\nb /dev/bare":                         "error:2: device: /dev/bare is the device of \"a\" in line 1 already",
		"a /dev/bare\nb /dev/link":                         "error:2: device: /dev/link is the device of \"a\" in line 1 already",
		"a UUID=" + id + "\nb UUID=" + strings.ToUpper(id): "error:2: device: UUID=" + strings.ToUpper(id) + " is the device of \"a\"",
		"a UUID=" + strings.ToUpper(id):                    "warning:1: device: udev writes UUIDs in small letters, so systemd waits for this one in vain: write UUID=" + id,
		"a UUID=ABCD-1234 - swap":                          "warning:1: options: swap: attach-all",
		"a /dev/toy - toy-device=/dev/gone":                "warning:1: options: toy-device=/dev/gone: /dev/gone does not exist now",
		"a /dev/bare - toy=auto":                           "error:1: options: toy=auto: unknown option, did you mean \"toy-device=auto\"?",
		"a /dev/toy - toy-unlock-device=auto":              "error:1: options: toy-unlock-device=auto: unknown option, did you mean \"toy-device=auto\"?",
		"a /dev/bare cryptroot keyscript=decrypt_keyctl":   "warning:1: options: keyscript=decrypt_keyctl: a program named in crypttab is never run, so a passphrase",
		"a /dev/bare /good.key swap":                       "warning:1: options: swap: attach-all",
		"a /dev/bare - luks,,discard,":                     "warning:1: options: two commas in a row, or one at the end",
		"a /dev/bare - luks, discard":                      "warning:1: line: ignoring \"discard\" and what follows: there are no spaces between options; write luks,discard",
		"a /dev/bare - luks # mine":                        "warning:1: line: ignoring \"#\" and what follows: a comment stands on a line of its own",
		"a sda3 - luks":                                    "error:1: device: \"sda3\" is neither absolute nor a tag such as UUID=; write /dev/sda3",
		"a /dev/bare - luks,,discard":                      "warning:1: options: two commas in a row, or one at the end",
		"a /dev/toy - toy-device=auto,headless":            "warning:1: options: headless: the test-toy token wants a PIN",
	} {
		var got []string
		for _, f := range lint(t, "/crypttab", text) {
			if f.Level != Info {
				got = append(got, string(f.Level)+strings.TrimPrefix(f.Error(), "/crypttab"))
			}
		}
		if len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%q:\n got  %q\n want %q", text, got, want)
		}
	}
	if _, err := Parse(strings.NewReader("\xff\xfea\x00 \x00/\x00"), "f"); !errors.Is(err, errUTF16) {
		t.Errorf("UTF-16: %v", err)
	}
}

// TestGoodFilesHaveNoFindings: each line of a distribution's file had a note.
func TestGoodFilesHaveNoFindings(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"Debian": "# <target name> <source device> <key file> <options>\nsda3_crypt /dev/bare none luks,discard,initramfs\ndata UUID=01234567-89ab-cdef-0123-456789abcdef /good.key luks,nofail,noearly\n",
		"Fedora": "luks-x UUID=01234567-89ab-cdef-0123-456789abcdef none discard,x-initrd.attach\nhome /dev/toy - toy-device=auto,_netdev,x-systemd.device-timeout=60s\n",
		"Arch":   "# Configuration for encrypted block devices\nhome PARTUUID=ABCD1234-01 none timeout=180\r\nbackup LABEL=backup /good.key luks,noauto,keyfile-timeout=5s\r\n",
	} {
		for _, f := range lint(t, "/crypttab", text) {
			if f.Level != Info {
				t.Errorf("%s: %s", name, f.Text())
			}
		}
	}
}
