package crypttab

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// toys are the options of two token types, as tokens.Set.Grammar adds them: the second
// keeps its PIN out of the keyring and can take its parameters from the key file.
var toys = append(slices.Clone(Table),
	Option{Name: "toy-device", Arg: "PATH|auto", Use: ForTokens, Type: "toy", TokenType: "test-toy", Selects: true, Check: checkToy},
	Option{Name: "toy-pin", Arg: "BOOL", Use: ForTokens, Type: "toy", TokenType: "test-toy", Needs: "toy-device",
		Check: func(value string) error { _, err := ParseBool(value); return err }},
	Option{Name: "toy-name", Arg: "NAME", Use: ForTokens, Fatal: true, Type: "toy", TokenType: "test-toy", Needs: "card", Check: checkToy},
	Option{Name: "toy-keys", Arg: "NAME", Use: ForTokens, Type: "toy", TokenType: "test-toy", Joins: ':', Check: checkToy},
	Option{Name: "card", Arg: "URI|auto", Use: ForTokens, Fatal: true, Type: "card", TokenType: "test-card", Selects: true, NeedsKeyFile: true, Uncached: true,
		Check: checkToy})

func checkToy(value string) error {
	switch value {
	case "bad":
		return ErrBadValue
	case "unusable":
		return &UnusableError{ErrBadValue}
	}
	return nil
}

// TestValueThatCannotWorkCostsItsTypeOnly: what systemd takes does not end the attach
// here, whatever the handler thinks of it.
func TestValueThatCannotWorkCostsItsTypeOnly(t *testing.T) {
	t.Parallel()
	o, warnings, err := toys.ParseOptions("card=unusable,toy-device=bad")
	if err != nil || len(warnings) != 1 || !slices.Equal(o.Types, []string{"card"}) || o.Value("card") != "unusable" || o.Value("toy-device") != "" {
		t.Errorf("%v %v: types %q, words %v", warnings, err, o.Types, o.Words)
	}
	if _, _, err := toys.ParseOptions("card=bad"); err == nil {
		t.Error("what systemd refuses is taken")
	}
	if _, _, err := toys.ParseOptions("card=auto,password-cache=yes"); err == nil {
		t.Error("password-cache=yes is taken beside a type without cache")
	}
}

func TestOptionsAreStored(t *testing.T) {
	t.Parallel()
	minute, forever := time.Minute, Forever
	for text, change := range map[string]func(*Options){
		"":                                     func(*Options) {},
		"luks":                                 func(o *Options) { o.Mode = ModeLUKS },
		"plain,cipher=aes,hash=plain,size=256": func(o *Options) { o.Mode, o.Cipher, o.Hash, o.KeySizeBits = ModePlain, "aes", "plain", 256 },
		"plain,offset=8,skip=0x10,sector-size=4096": func(o *Options) { o.Mode, o.OffsetSectors, o.SkipSectors, o.SectorSize = ModePlain, 8, 16, 4096 },
		"swap":    func(o *Options) { o.Mode, o.Swap = ModePlain, true },
		"tmp":     func(o *Options) { o.Mode, o.Temporary = ModePlain, "ext4" },
		"tmp=xfs": func(o *Options) { o.Mode, o.Temporary = ModePlain, "xfs" },
		"tcrypthidden,tcrypt-system,veracrypt,veracrypt-pim=3,tcrypt-keyfile=/a,tcrypt-keyfile=/b": func(o *Options) {
			o.Mode, o.TcryptHidden, o.TcryptSystem, o.Veracrypt, o.VeracryptPIM, o.TcryptKeyFiles = ModeTcrypt, true, true, true, 3, []string{"/a", "/b"}
		},
		"bitlk":             func(o *Options) { o.Mode = ModeBitlk },
		"fvault2":           func(o *Options) { o.Mode = ModeFvault2 },
		"header=/h:LABEL=x": func(o *Options) { o.Mode, o.Header = ModeLUKS, "/h:LABEL=x" },
		"tcrypt,header=/h":  func(o *Options) { o.Mode, o.Header = ModeTcrypt, "/h" },
		"keyslot=5":         func(o *Options) { o.Mode, o.KeySlot = ModeLUKS, 5 },
		"keyfile-size=10,keyfile-offset=5,keyfile-erase": func(o *Options) { o.KeyFileSize, o.KeyFileOffset, o.KeyFileErase = 10, 5, true },
		"keyfile-erase,keyfile-erase=no":                 func(o *Options) {},
		"keyfile-timeout=1min":                           func(o *Options) { o.KeyFileTimeout = &minute },
		"keyfile-timeout":                                func(o *Options) { o.KeyFileTimeout = &forever },
		"x-systemd.device-timeout=60":                    func(o *Options) { o.DeviceTimeout = &minute },
		"comment=systemd.device-timeout=0":               func(o *Options) { o.DeviceTimeout = &forever },
		"tries=0,timeout=60,token-timeout=0":             func(o *Options) { o.Tries, o.Timeout, o.TokenTimeout = 0, minute, Forever },
		"headless,verify,try-empty-password,luksmith-token-only,luksmith-latch": func(o *Options) {
			o.Headless, o.Verify, o.TryEmptyPassword, o.TokenOnly, o.Latch = true, true, true, true, true
		},
		"password-echo=no,password-cache=no":                            func(o *Options) { o.Echo, o.PasswordCache = EchoNo, CacheNo },
		"password-echo=1,password-cache=read-only":                      func(o *Options) { o.Echo, o.PasswordCache = EchoYes, CacheReadOnly },
		"readonly,allow-discards,same-cpu-crypt,submit-from-crypt-cpus": func(o *Options) { o.ReadOnly, o.Discard, o.SameCPUCrypt, o.SubmitFromCPUs = true, true, true, true },
		"no-read-workqueue,no-write-workqueue":                          func(o *Options) { o.NoReadWorkqueue, o.NoWriteWorkqueue = true, true },
		"link-volume-key=@u::%user:a\\,b":                               func(o *Options) { o.LinkVolumeKey = "@u::%user:a,b" },
		"fixate-volume-key=" + strings.Repeat("aB", 32):                 func(o *Options) { o.FixateVolumeKey = strings.Repeat("ab", 32) },
		"toy-device=/dev/toy,toy-pin=yes,toy-device=auto":               func(o *Options) { o.Types = []string{"toy"} },
		"card=auto,toy-device=x":                                        func(o *Options) { o.Types, o.PasswordCache = []string{"card", "toy"}, CacheNo },
		"tpm2-measure-pcr=yes,tpm2-measure-bank=SHA-256:sha1":           func(o *Options) { o.MeasurePCR, o.MeasureBanks = 15, []string{"sha256", "sha1"} },
		"tpm2-measure-bank=sha1,tpm2-measure-bank=SHA256:sha256:":       func(o *Options) { o.MeasureBanks = []string{"sha256"} },
		"tpm2-measure-pcr=0xf":                                          func(o *Options) { o.MeasurePCR = 15 },
		"tpm2-measure-pcr=11,tpm2-measure-pcr=no":                       func(o *Options) {},
		"noauto,nofail,_netdev,x-initrd.attach":                         func(o *Options) { o.NoAuto, o.NoFail, o.NetDev, o.InInitrd = true, true, true, true },
		"noauto,auto,nofail,fail":                                       func(o *Options) {},
		"x-systemd.makefs,comment=anything":                             func(*Options) {},
	} {
		want := defaults()
		change(want)
		got, warnings, err := toys.ParseOptions(text)
		if err != nil || len(warnings) != 0 {
			t.Errorf("%q: %v %v", text, warnings, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Options{}, "Words", "passwordCacheSeen", "uncached")); diff != "" {
			t.Errorf("%q:\n%s", text, diff)
		}
	}
}

func TestWordsKeepValuesForTokenTypes(t *testing.T) {
	t.Parallel()
	o, _, err := toys.ParseOptions(`toy-device=auto,toy-name=a\,b\\c,discard,toy-pin=x,frob`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Word{{"toy-device", "auto", true}, {"toy-name", `a,b\c`, true}, {"discard", "", false}}
	if diff := cmp.Diff(want, o.Words); diff != "" {
		t.Error(diff)
	}
}

func TestRestrictionsAreNeverIgnored(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"headless=maybe", "read-only=yes", "readonly=1", "luksmith-token-only=1", "luksmith-latch=no", "key-slot", "keyslot=x", "key-slot=32", "header",
		"fixate-volume-key", "fixate-volume-key=00", "fixate-volume-key=" + strings.Repeat("z", 64)} {
		var syntax *SyntaxError
		if _, _, err := toys.ParseOptions("luks," + text); !errors.As(err, &syntax) || !strings.Contains(syntax.Field, text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestUnknownOptionsGetSuggestions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"discards": "discard", " discard": "discard", "DISCARD": "discard", "discard=yes": "discard", "no_read_workqueue": "no-read-workqueue",
		"tires=3": "tries=3", "tries": "tries=NUMBER", "toy_device=auto": "toy-device=auto", "toy-devcie=auto": "toy-device=auto", "toy=auto": "toy-device=auto", "toy-token-device=x": "toy-device=x",
		"nofial": "nofail", "keyfile-timeuot=3": "keyfile-timeout=3", "netdev": "_netdev", "allow-discard": "allow-discards", "headles": "headless[=BOOL]",
		"frobnicate": "", "x": "", "": "",
	} {
		_, warnings, err := toys.ParseOptions("luks," + text)
		if err != nil || len(warnings) != 1 || !errors.Is(warnings[0], ErrUnknownOption) {
			t.Errorf("%q: %v %v", text, warnings, err)
			continue
		}
		if got := warnings[0].Error(); want != "" && !strings.Contains(got, `did you mean "`+want+`"`) || want == "" && strings.Contains(got, "did you mean") {
			t.Errorf("%q: %s; want the suggestion %q", text, got, want)
		}
	}
}

func TestTableIsConsistent(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, row := range Table {
		for _, name := range []string{row.Name, row.Alias} {
			if name != "" && seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
		}
		if row.Help == "" || row.set == nil || row.Use == "" || (row.Since == 0) == (row.Origin == Systemd) {
			t.Errorf("%s: incomplete row", row.Name)
		}
		if row.Since > 262 {
			t.Errorf("%s: no such release", row.Name)
		}
	}
	var ours []string
	for _, row := range Table {
		if row.Origin == Luksmith {
			ours = append(ours, row.Name)
		}
	}
	if want := []string{"luksmith-token-only", "luksmith-latch"}; !slices.Equal(ours, want) {
		t.Errorf("options of our own: %v, want %v", ours, want)
	}
}

func TestHeaderLocation(t *testing.T) {
	t.Parallel()
	label := DeviceRef{Tag: TagLabel, Value: "x", Literal: "x"}
	for text, want := range map[string]Location{"": {}, "header=/a": {Path: "/a"}, "header=/a:LABEL=x": {"/a", &label}, "header=/a:b": {Path: "/a:b"}} {
		o, _, err := toys.ParseOptions(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, o.HeaderLocation()); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}
