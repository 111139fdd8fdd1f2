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
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// TestSamplesAreRead says of every recorded token what is in it, in the words of
// list.
func TestSamplesAreRead(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"default262": "TPM alone",
		"lanes262":   "PIN",
		"nopcr257":   "TPM alone",
		"off257":     "PCR 7 (sha256)",
		"offpin262":  "PIN",
		"offrsa257":  "TPM alone",
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
		values := chip.PCRValues{}
		for _, i := range tok.PCRs.List() {
			values[i] = make([]byte, tok.Bank.Size())
		}
		for i, kind := range tok.Shards() {
			if got := tok.Digest(kind, values, 65537); got != tok.policy[i] {
				t.Errorf("%s: policy %d is %x, computed %x", name, i, tok.policy[i], got)
			}
		}
		if !tok.Explains(tok.policy, values) {
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
		if tok.Bank == 0 {
			tok.Bank = chip.BankSHA256
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

func TestKeyNameWithExponentZeroGivesAnotherPolicy(t *testing.T) {
	t.Parallel()
	tok, err := parseToken(samples(t)["pub257"])
	if err != nil {
		t.Fatal(err)
	}
	var d chip.Digest
	d.Authorize(tok.Key.Name(0), nil)
	if want := unhex(t, "cf0dc3cc"); !bytes.HasPrefix(d[:], want) {
		t.Errorf("policy with exponent 0 is %x, want %x…", d, want)
	}
	// A token as systemd 255.0 wrote it is recognised.
	tok.policy[0] = d
	if e := tok.KeyExponent(tok.policy[0], tok.recorded()); e != 0 {
		t.Errorf("exponent %d, want 0", e)
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
			again, err := chip.ParseBlob(b.Bytes())
			if err != nil || !bytes.Equal(again.Bytes(), b.Bytes()) {
				t.Errorf("%s: %v", name, err)
			}
			for n := range b.Bytes() {
				if _, err := chip.ParseBlob(b.Bytes()[:n]); err == nil && n != len(b.Bytes())-len(b.Seed)-2 {
					t.Errorf("%s: the first %d of %d bytes are taken for a sealed object", name, n, len(b.Bytes()))
				}
			}
			if _, err := chip.ParseBlob(append(b.Bytes(), 0)); err == nil {
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
	if _, err := policy.ParseSigningKey([]byte(pem)); err != nil {
		t.Errorf("the key is refused as malformed: %v", err)
	}
	h := handlerFor(t, "")
	path := filepath.Join(t.TempDir(), "ec.pem")
	if err := os.WriteFile(path, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	h.PublicKey = new(path)
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
		if tok.Bank == 0 {
			tok.Bank = chip.BankSHA256
		}
		compat := newestSystemd
		if tok.Parent == nil {
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
