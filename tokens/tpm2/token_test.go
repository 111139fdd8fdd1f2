package tpm2

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/tokens"
)

// TestSamplesAreRead says of every recorded token what is in it, in the words of
// list.
func TestSamplesAreRead(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"default262": "",
		"lanes262":   "PIN",
		"nopcr257":   "",
		"off257":     "PCR 7 (sha256)",
		"offpin262":  "PIN",
		"offrsa257":  "",
		"pcrlock257": "pcrlock policy",
		"pin252":     "PCR 7 (sha256), PIN",
		"pin257":     "PCR 7 (sha256), PIN",
		"pin262":     "PCR 7 (sha256), PIN",
		"pindir262":  "PCR 7 (sha256), PIN",
		"pub257":     "signed PCR 11",
		"pub262":     "PCR 7 (sha256), signed PCR 11",
		"pubref262":  "signed PCR 11",
		"rsa257":     "PCR 7 (sha256)",
		"sha1":       "PCR 7 (sha1)",
		"shard257":   "signed PCR 11, pcrlock policy",
		"t252":       "PCR 7+11 (sha256)",
		"t257":       "PCR 7+11 (sha256)",
	}
	for name, raw := range samples(t) {
		d, err := new(Handler).Describe(asToken(0, raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join(d.Requires, ", "); got != want[name] || d.Unusable != "" {
			t.Errorf("%s: requires %q, unusable %q, want %q", name, got, d.Unusable, want[name])
		}
	}
}

// TestPolicyOfEverySample recomputes the policies of the recorded tokens. All of
// them were made while the PCRs were zero.
func TestPolicyOfEverySample(t *testing.T) {
	t.Parallel()
	for name, raw := range samples(t) {
		tok, err := parseToken(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		values := pcrValues{}
		for _, i := range tok.pcrs.list() {
			values[i] = make([]byte, tok.bank.size())
		}
		var nvName []byte
		if tok.nvIndex != nil {
			nvName = tok.nvIndex.name
		}
		for i, kind := range tok.shards() {
			if got := tok.policyOf(kind, values, 65537, nvName); got != tok.policy[i] {
				t.Errorf("%s: policy %d is %x, computed %x", name, i, tok.policy[i], got)
			}
		}
		if !tok.explains(values) {
			t.Errorf("%s: zero values do not explain the policy", name)
		}
	}
}

// TestSamplesAreWrittenAsSystemdDid writes the tokens again in the form of the
// version that made them.
func TestSamplesAreWrittenAsSystemdDid(t *testing.T) {
	t.Parallel()
	versions := map[string]int{"t252": 252, "pin252": 252, "sha1": 257}
	for name, raw := range samples(t) {
		compat := versions[name]
		if compat == 0 {
			compat = map[bool]int{true: 262, false: 257}[strings.HasSuffix(name, "262")]
		}
		tok, err := parseToken(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tok.bank == 0 {
			tok.bank = bankSHA256
		}
		m := tok.members(compat)
		m.Keyslots = []string{"1"}
		got, err := marshalToken(m)
		if err != nil {
			t.Fatal(err)
		}
		// systemd keeps an older member order for some; the bytes of each member
		// are what counts.
		if diff := cmp.Diff(memberTexts(t, raw), memberTexts(t, got)); diff != "" {
			t.Errorf("%s (-systemd +ours):\n%s", name, diff)
		}
	}
}

func memberTexts(t *testing.T, raw json.RawMessage) map[string]string {
	t.Helper()
	m, err := tokens.Members(raw)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for name, value := range m {
		texts[name] = string(value)
	}
	return texts
}

// TestPolicyVectors are values that systemd 252, 257 and 262 agree on (docs/formats.md).
func TestPolicyVectors(t *testing.T) {
	t.Parallel()
	zero := func(pcrs ...int) pcrValues {
		v := pcrValues{}
		for _, i := range pcrs {
			v[i] = make([]byte, 32)
		}
		return v
	}
	for _, c := range []struct {
		name, want string
		build      func(*policyDigest)
	}{
		{"nothing", strings.Repeat("00", 32), func(*policyDigest) {}},
		{"PCR 7", "8b5682d81b29435d08d79278150611dc7e5923b2fefcce684a09577b40130a8b", func(d *policyDigest) { d.pcr(bankSHA256, zero(7)) }},
		{"PCR 7+11", "384378caeddc9690b2ac9589827a756a5c46c8b33178b2fe468c80531b97a53e", func(d *policyDigest) { d.pcr(bankSHA256, zero(7, 11)) }},
		{"PCR 11", "fd32fa22c52cfc8e1a0c29eb38519f87084cab0b04b0d8f020a4d38b2f4e223e", func(d *policyDigest) { d.pcr(bankSHA256, zero(11)) }},
		{"PCR 7, PIN", "b8db92fae7c1e0c588e7352d2fc10f27c7b384e32f706a520cb10bf7ffee8970", func(d *policyDigest) { d.pcr(bankSHA256, zero(7)); d.authValue() }},
		{"PIN", "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e", func(d *policyDigest) { d.authValue() }},
		{"PCR 7, SHA-1", "84278b60d0547dc27ec6667e7afeece0711c09b5ced09a30a65b389d3afda1ef", func(d *policyDigest) { d.pcr(bankSHA1, pcrValues{7: make([]byte, 20)}) }},
	} {
		var d policyDigest
		c.build(&d)
		if !bytes.Equal(d[:], unhex(t, c.want)) {
			t.Errorf("%s: %x, want %s", c.name, d, c.want)
		}
	}
}

func TestKeyNameWithExponentZeroGivesAnotherPolicy(t *testing.T) {
	t.Parallel()
	tok, err := parseToken(samples(t)["pub257"])
	if err != nil {
		t.Fatal(err)
	}
	var d policyDigest
	d.authorize(tok.pubkey.name(0), nil)
	if want := unhex(t, "cf0dc3cc"); !bytes.HasPrefix(d[:], want) {
		t.Errorf("policy with exponent 0 is %x, want %x…", d, want)
	}
	// A token as systemd 255.0 wrote it is recognised.
	tok.policy[0] = d
	if e := tok.signingExponent(); e != 0 {
		t.Errorf("exponent %d, want 0", e)
	}
}

func TestSigningKeyFingerprintIsOfPKCS1(t *testing.T) {
	t.Parallel()
	key, err := parseSigningKey(readTestFile(t, "testdata/tpm2-pcr-public-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "d28989cb9bca5ae42043eb734df7b9b332890ab23c31222f7839cb43483545ae"); !bytes.Equal(key.fingerprint[:], want) {
		t.Errorf("fingerprint %x, want %x", key.fingerprint, want)
	}
}

func TestBlobsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	for name, raw := range samples(t) {
		tok, err := parseToken(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, b := range tok.blobs {
			again, err := parseBlob(b.bytes())
			if err != nil || !bytes.Equal(again.bytes(), b.bytes()) {
				t.Errorf("%s: %v", name, err)
			}
			for n := range b.bytes() {
				if _, err := parseBlob(b.bytes()[:n]); err == nil && n != len(b.bytes())-len(b.seed)-2 {
					t.Errorf("%s: the first %d of %d bytes are taken for a sealed object", name, n, len(b.bytes()))
				}
			}
			if _, err := parseBlob(append(b.bytes(), 0)); err == nil {
				t.Errorf("%s: a byte that follows is not noticed", name)
			}
		}
	}
}

func TestUnknownMembers(t *testing.T) {
	t.Parallel()
	all := samples(t)
	for _, c := range []struct {
		sample   string
		unusable bool
	}{{"t257", false}, {"pin257", true}, {"pin262", true}} {
		text := changed(t, all[c.sample], "tpm2_future", "1")
		d, err := new(Handler).Describe(asToken(0, json.RawMessage(text)))
		if err != nil {
			t.Fatal(err)
		}
		if (d.Unusable != "") != c.unusable {
			t.Errorf("%s: unusable %q", c.sample, d.Unusable)
		}
		if c.unusable && !strings.Contains(d.Unusable, "tpm2_future") {
			t.Errorf("%s: %q does not name the member", c.sample, d.Unusable)
		}
		if !slices.Equal(d.Detail.(*Detail).Unknown, []string{"tpm2_future"}) {
			t.Errorf("%s: unknown members %q", c.sample, d.Detail.(*Detail).Unknown)
		}
	}
}

// TestRecordWithoutBank: nothing in our member may break a token that is odd
// elsewhere.
func TestRecordWithoutBank(t *testing.T) {
	t.Parallel()
	text := changed(t, json.RawMessage(changed(t, samples(t)["t257"], memberBank, "")), tokens.ExtraMember, `{"tpm2":{"pcrs":{"7":"","11":""}}}`)
	if _, err := new(Handler).Describe(asToken(0, json.RawMessage(text))); err != nil {
		t.Error(err)
	}
}

// TestEllipticCurveSigner is enrolled by systemd from 255 on and opened by nobody.
func TestEllipticCurveSigner(t *testing.T) {
	t.Parallel()
	const pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\nq9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==\n-----END PUBLIC KEY-----\n"
	text := changed(t, samples(t)["pub262"], memberPubkey, `"`+base64.StdEncoding.EncodeToString([]byte(pem))+`"`)
	text = changed(t, json.RawMessage(text), tokens.ExtraMember, `{"tpm2":{"pcrs":{"7":"`+strings.Repeat("A", 43)+`="}}}`)
	d, err := new(Handler).Describe(asToken(0, json.RawMessage(text)))
	if err != nil || !strings.Contains(d.Unusable, "elliptic-curve") {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := parseSigningKey([]byte(pem)); err != nil {
		t.Errorf("the key is refused as malformed: %v", err)
	}
	h := handlerFor(t, "")
	path := filepath.Join(t.TempDir(), "ec.pem")
	if err := os.WriteFile(path, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	h.publicKey = pathOption{true, path}
	if _, err := h.Plan(&tokens.EnrollRequest{}); !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), "work with RSA only") {
		t.Errorf("enrolling with it: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	for _, raw := range samples(f) {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := parseToken(raw)
		if err != nil {
			return
		}
		tok.describe()
		// What is read can be written and read again.
		if tok.bank == 0 {
			tok.bank = bankSHA256
		}
		compat := newestSystemd
		if tok.parent == nil {
			compat = sinceSRK - 1
		}
		again, err := marshalToken(tok.members(compat))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseToken(again); err != nil {
			t.Fatalf("%v\n%s\n%s", err, raw, again)
		}
	})
}
