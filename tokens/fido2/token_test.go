package fido2

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// fixture is the sidecar of a volume enrolled by real systemd.
type fixture struct {
	Token      json.RawMessage `json:"token"`
	Passphrase string          `json:"derived_passphrase"`
}

func readFixture(t testing.TB, name string) fixture {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var f fixture
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func token(raw string) luks2.Token {
	return luks2.Token{Type: Type, Keyslots: []int{1}, Raw: json.RawMessage(raw)}
}

func TestParseTokensOfSystemd(t *testing.T) {
	for name, want := range map[string]parameters{
		"systemd257-fido2-pin": {pin: yes, up: yes, uv: no},
		"systemd257-fido2-up":  {pin: no, up: yes, uv: no},
	} {
		f := readFixture(t, name)
		p, err := parse(token(string(f.Token)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.pin != want.pin || p.up != want.up || p.uv != want.uv || p.rp != DefaultRP || len(p.salt) != SaltSize {
			t.Errorf("%s: %+v", name, p)
		}
		if text := base64.StdEncoding.EncodeToString(p.credential); !strings.Contains(string(f.Token), text) {
			t.Errorf("%s: credential %s is not that of the token", name, text)
		}
	}
}

// What we write has systemd's members in systemd's order and spelling.
func TestBuildWritesWhatSystemdWrites(t *testing.T) {
	f := readFixture(t, "systemd257-fido2-pin")
	p, err := parse(token(string(f.Token)))
	if err != nil {
		t.Fatal(err)
	}
	p.extra = extra{Extra: tokens.Extra{Label: "home", Device: "Key"}, AAGUID: "x"}
	built, err := p.build()
	if err != nil {
		t.Fatal(err)
	}
	var theirs bytes.Buffer
	if err := json.Compact(&theirs, f.Token); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(theirs.String(), `"keyslots":["1"]`, `"keyslots":[]`, 1)
	want = strings.TrimSuffix(want, "}") + `,"luksmith":{"label":"home","device":"Key","aaguid":"x"}}`
	if diff := cmp.Diff(want, string(built)); diff != "" {
		t.Error(diff)
	}
}

const (
	cred = `"fido2-credential":"AAECAw=="`
	salt = `"fido2-salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`
)

func TestDescribe(t *testing.T) {
	h := &Handler{}
	for _, tt := range []struct {
		name, members string
		requires      []string
		cost          int
		unusable      string
	}{
		{"248, no flags", "", []string{"PIN if the key asks", "touch if the key asks"}, 10, ""},
		{"touch", `"fido2-clientPin-required":false,"fido2-up-required":true,"fido2-uv-required":false`, []string{"touch"}, 10, ""},
		{"all", `"fido2-clientPin-required":true,"fido2-up-required":true,"fido2-uv-required":true`,
			[]string{"PIN", "user verification", "touch"}, 20, ""},
		{"nothing", `"fido2-clientPin-required":false,"fido2-up-required":false,"fido2-uv-required":false`, nil, 0, ""},
		{"newer", `"fido2-future":1`, []string{"PIN if the key asks", "touch if the key asks"}, 10, `"fido2-future"`},
		{"other spelling is another member", `"Fido2-up-required":true,"x":[null]`, []string{"PIN if the key asks", "touch if the key asks"}, 10, ""},
	} {
		d, err := h.Describe(token("{" + strings.TrimSuffix(cred+","+salt+","+tt.members, ",") + "}"))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !slices.Equal(d.Requires, tt.requires) || d.Cost != tt.cost || !strings.Contains(d.Unusable, tt.unusable) || (d.Unusable != "") != (tt.unusable != "") {
			t.Errorf("%s: %+v", tt.name, d)
		}
		b, err := json.Marshal(d.Detail)
		if err != nil || bytes.Contains(b, []byte("AAECAw")) {
			t.Errorf("%s: detail %s, %v", tt.name, b, err)
		}
	}
}

func TestDescribeTellsLabelAndDevice(t *testing.T) {
	d, err := (&Handler{}).Describe(token(`{` + cred + `,` + salt + `,"luksmith":{"label":"home","device":"YubiKey 5 NFC","aaguid":"u"}}`))
	if err != nil || d.Label != "home" || d.Detail.(detail).Device != "YubiKey 5 NFC" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, broken := range []string{`"luksmith":7`, `"luksmith":{"label":7}`} {
		if _, err := (&Handler{}).Describe(token(`{` + cred + `,` + salt + `,` + broken + `}`)); err != nil {
			t.Errorf("%s makes the token unusable: %v", broken, err)
		}
	}
}

func TestMalformedTokensNameTheMember(t *testing.T) {
	long := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, tt := range []struct{ name, raw, want string }{
		{"no JSON", `{`, "unexpected end"},
		{"array", `[]`, "cannot unmarshal"},
		{"null", `null`, "null instead of an object"},
		{"no credential", `{` + salt + `}`, `"fido2-credential": is missing`},
		{"no salt", `{` + cred + `}`, `"fido2-salt": is missing`},
		{"empty credential", `{"fido2-credential":"",` + salt + `}`, `"fido2-credential": has 0 bytes, 1 to 1023`},
		{"credential of 1024 bytes", `{"fido2-credential":"` + long(1024) + `",` + salt + `}`, `"fido2-credential": has 1024 bytes`},
		{"credential of 2000 bytes", `{"fido2-credential":"` + long(2000) + `",` + salt + `}`, `"fido2-credential": has 2000 bytes`},
		{"huge credential", `{"fido2-credential":"` + long(1<<20) + `",` + salt + `}`, `at most 4096`},
		{"credential no base64", `{"fido2-credential":"!!",` + salt + `}`, `"fido2-credential": is not base64`},
		{"credential unpadded", `{"fido2-credential":"AAECAw",` + salt + `}`, `"fido2-credential": is not base64`},
		{"credential null", `{"fido2-credential":null,` + salt + `}`, `"fido2-credential": is null`},
		{"credential number", `{"fido2-credential":7,` + salt + `}`, `"fido2-credential": is a number`},
		{"credential list", `{"fido2-credential":["AA=="],` + salt + `}`, `"fido2-credential": is a array`},
		{"salt of 31 bytes", `{` + cred + `,"fido2-salt":"` + long(31) + `"}`, `"fido2-salt": has 31 bytes instead of 32`},
		{"salt of 64 bytes", `{` + cred + `,"fido2-salt":"` + long(64) + `"}`, `"fido2-salt": has 64 bytes instead of 32`},
		{"empty relying party", `{` + cred + `,` + salt + `,"fido2-rp":""}`, `"fido2-rp": is empty`},
		{"relying party null", `{` + cred + `,` + salt + `,"fido2-rp":null}`, `"fido2-rp": is null`},
		{"relying party with NUL", `{` + cred + `,` + salt + `,"fido2-rp":"a\u0000b"}`, `"fido2-rp": has the control character U+0000`},
		{"long relying party", `{` + cred + `,` + salt + `,"fido2-rp":"` + strings.Repeat("a", 254) + `"}`, `"fido2-rp": has 254 bytes`},
		{"flag is a string", `{` + cred + `,` + salt + `,"fido2-up-required":"yes"}`, `"fido2-up-required": is a string`},
		{"flag is null", `{` + cred + `,` + salt + `,"fido2-uv-required":null}`, `"fido2-uv-required": is null`},
		{"flag is a number", `{` + cred + `,` + salt + `,"fido2-clientPin-required":1}`, `"fido2-clientPin-required": is a number`},
	} {
		_, err := (&Handler{}).Describe(token(tt.raw))
		if !errors.Is(err, tokens.ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestCredentialSurvivesWhiteSpaceAsInSystemd(t *testing.T) {
	p, err := parse(token(`{"fido2-credential":"AA EC\nAw= =",` + salt + `}`))
	if err != nil || !bytes.Equal(p.credential, []byte{0, 1, 2, 3}) {
		t.Errorf("%v, %v", p, err)
	}
}

func TestCrypttabOptionsOfAVolumeWithoutToken(t *testing.T) {
	p := &parameters{credential: []byte{0, 1, 2, 3}, rp: "example.org", pin: yes, up: no}
	want := []string{"fido2-cid=AAECAw==", "fido2-rp=example.org", "fido2-pin=yes", "fido2-up=no"}
	if got := p.crypttab(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestPrintableLabels(t *testing.T) {
	for in, want := range map[string]string{"Key\x1b[2J\n": "Key[2J", "a\u202eb\xff": "ab", "äöüäöü": "äöüä", "  x ": "x", "\x00": ""} {
		if got := printable(in, 8); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzToken(f *testing.F) {
	for _, name := range []string{"systemd257-fido2-pin", "systemd257-fido2-up"} {
		f.Add([]byte(readFixture(f, name).Token))
	}
	f.Add([]byte(`{` + cred + `,` + salt + `,"fido2-rp":"x","fido2-future":{},"luksmith":{"label":"\u001b"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok := token(string(raw))
		if _, err := (&Handler{}).Describe(tok); err != nil {
			return
		}
		p, err := parse(tok)
		if len(p.credential) < 1 || len(p.credential) > 1023 || len(p.salt) != SaltSize || p.rp == "" || strings.ContainsRune(p.rp, 0) {
			t.Fatalf("accepted %+v", p)
		}
		if err != nil || p.pin == ifAsked || p.up == ifAsked || p.uv == ifAsked {
			return
		}
		built, err := p.build()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(token(string(built)))
		if err != nil || !bytes.Equal(again.credential, p.credential) || !bytes.Equal(again.salt, p.salt) || again.rp != p.rp ||
			again.pin != p.pin || again.up != p.up || again.uv != p.uv {
			t.Fatalf("%s: built %s, %v", raw, built, err)
		}
	})
}

// The recorded output of the key in the base64 form opens the keyslot.
func TestPassphraseOfSystemdsVolumesOpensTheirKeyslot(t *testing.T) {
	testenv.Need(t, "cryptsetup")
	for _, name := range []string{"systemd257-fido2-pin", "systemd257-fido2-up"} {
		raw, err := base64.StdEncoding.DecodeString(readFixture(t, name).Passphrase)
		if err != nil || len(raw) != 32 {
			t.Fatalf("%s: %d bytes, %v", name, len(raw), err)
		}
		s := secret.Take(raw)
		defer s.Wipe()
		passphrase := secret.Base64(s)
		defer passphrase.Wipe()
		cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-slot=1", "--key-file=-",
			testenv.Image(t, filepath.Join("testdata", name+".img.zst")))
		cmd.Stdin = bytes.NewReader(passphrase.Bytes())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
