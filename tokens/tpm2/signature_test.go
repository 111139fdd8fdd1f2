package tpm2

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

const publicKeyPath = "testdata/tpm2-pcr-public-key.pem"

// sign makes an entry of a signature file, as systemd-measure does.
func sign(t testing.TB, b chip.Bank, values chip.PCRValues, ref *string) map[string]any {
	t.Helper()
	block, _ := pem.Decode(readTestFile(t, "testdata/pcr-sign-key.pem"))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, err := policy.ParseSigningKey(readTestFile(t, publicKeyPath))
	if err != nil {
		t.Fatal(err)
	}
	s := policy.Signature{Ref: ref}
	s.Policy.PCR(b, values)
	sig, err := rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), crypto.SHA256, s.SignedDigest())
	if err != nil {
		t.Fatal(err)
	}
	entry := map[string]any{"pcrs": values.Set().List(), "pkfp": hex.EncodeToString(public.Fingerprint[:]), "pol": hex.EncodeToString(s.Policy[:]),
		"sig": base64.StdEncoding.EncodeToString(sig)}
	if ref != nil {
		entry["ref"] = *ref
	}
	return entry
}

// signatureFileOf writes a signature file.
func signatureFileOf(t testing.TB, banks map[string][]map[string]any) *string {
	t.Helper()
	text, err := json.Marshal(banks)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "signature.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return new(path)
}

// valueOf is the present value of a PCR.
func valueOf(t testing.TB, swtpm *testenv.TPM, b chip.Bank, pcr int) chip.PCRValues {
	t.Helper()
	c, err := new(Handler).connect(t.Context(), swtpm.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	values, err := c.ReadPCRs(b, chip.PCRSetOf(pcr))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// TestUpdateWithNewSignatureNeedsNoHeaderWrite is the point of signed policies.
func TestUpdateWithNewSignatureNeedsNoHeaderWrite(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs, h.PublicKey, h.Signature = mustPCRs(t, "7"), new(publicKeyPath), new("testdata/tpm2-pcr-signature.json")
	e := enrolled(t, h)
	update(swtpm)
	if pe := policyError(t, h, e.Token); !strings.Contains(pe.Detail, "no signature approves") {
		t.Errorf("%v", pe)
	}
	// The new file has the values of other kernels too; the TPM is asked which.
	other := chip.PCRValues{11: make([]byte, 32)}
	other[11][0] = 1
	h.Signature = signatureFileOf(t, map[string][]map[string]any{"sha256": {
		sign(t, chip.BankSHA256, chip.PCRValues{11: make([]byte, 32)}, nil), sign(t, chip.BankSHA256, other, nil), sign(t, chip.BankSHA256, valueOf(t, swtpm, chip.BankSHA256, 11), nil),
	}})
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Errorf("with the new signature: %v", err)
	}
}

func TestPolicyReference(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	ref, wrong := "initrd", "sysinit"
	h := handlerFor(t, swtpm.Device())
	h.PublicKey, h.PublicKeyRef, h.Signature = new(publicKeyPath), &ref, new("testdata/tpm2-pcr-signature.json")
	e := enrolled(t, h)
	if tok := tokenOf(t, e.Token); tok.Ref == nil || *tok.Ref != ref {
		t.Errorf("reference %v", tok.Ref)
	}
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Error(err)
	}
	zero := chip.PCRValues{11: make([]byte, 32)}
	for name, r := range map[string]*string{"none": nil, "another": &wrong} {
		h.Signature = signatureFileOf(t, map[string][]map[string]any{"sha256": {sign(t, chip.BankSHA256, zero, r)}})
		if pe := policyError(t, h, e.Token); !strings.Contains(pe.Detail, "has none by the key of the token") {
			t.Errorf("signature with %s reference: %v", name, pe)
		}
	}
	empty := ""
	h.Signature = signatureFileOf(t, map[string][]map[string]any{"sha256": {sign(t, chip.BankSHA256, zero, &empty)}})
	policyError(t, h, e.Token)
}

// TestKeyOfSystemd255 unlocks a token whose policy names the key with exponent 0.
func TestKeyOfSystemd255(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for _, pcrs := range []string{"", "7"} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs, h.PublicKey, h.Signature = mustPCRs(t, pcrs), new(publicKeyPath), new("testdata/tpm2-pcr-signature.json")
		raw := sealForSystemd255(t, h)
		if _, err := unlockToken(t, h, asToken(0, raw)); err != nil {
			t.Errorf("PCR %q: %v", pcrs, err)
		}
	}
}

// sealForSystemd255 enrols like Enroll but with the key named as systemd 255.0
// named it, and without our record.
func sealForSystemd255(t *testing.T, h *Handler) json.RawMessage {
	t.Helper()
	s, err := h.settings(&tokens.EnrollRequest{Compat: 255})
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.connect(t.Context(), h.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := h.newEnrollment(s, c, tokentest.NewUI(t))
	if err := e.prepare(); err != nil {
		t.Fatal(err)
	}
	e.t.policy = []chip.Digest{e.t.Digest(policy.ShardSigned, e.values, 0)}
	made, err := e.make(t.Context(), replacement{})
	if err != nil {
		t.Fatal(err)
	}
	made.Passphrase.Wipe()
	return json.RawMessage(changed(t, made.Token, tokens.ExtraMember, ""))
}

func TestSignatureFileForAnotherKey(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	other := sign(t, chip.BankSHA256, chip.PCRValues{11: make([]byte, 32)}, nil)
	other["pkfp"] = strings.Repeat("00", 32)
	h.PublicKey, h.Signature = new(publicKeyPath), signatureFileOf(t, map[string][]map[string]any{"sha256": {other}})
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: newestSystemd}, tokentest.NewUI(t))
	if !errors.Is(err, tokens.ErrPolicy) || e != nil || !strings.Contains(err.Error(), "has none by the key of the token") {
		t.Errorf("enrolling with a signature file that does not fit: %v, %v", e, err)
	}
	// A bad signature is as good as none.
	bad := sign(t, chip.BankSHA256, chip.PCRValues{11: make([]byte, 32)}, nil)
	bad["sig"] = base64.StdEncoding.EncodeToString(make([]byte, 256))
	h.Signature = signatureFileOf(t, map[string][]map[string]any{"sha256": {bad}})
	if _, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: newestSystemd}, tokentest.NewUI(t)); !errors.Is(err, tokens.ErrPolicy) {
		t.Errorf("with a bad signature: %v", err)
	}
	// Without a file it is enrolled unproven, and said.
	h.Signature = new("")
	if e := enrolled(t, h); !strings.Contains(strings.Join(e.Notes, " "), "Not tested now") {
		t.Errorf("notes %q", e.Notes)
	}
}

func TestVerifySignatures(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PublicKey, h.Signature = new(publicKeyPath), new("testdata/tpm2-pcr-signature.json")
	e := enrolled(t, h)
	ref := "initrd"
	zero, old := chip.PCRValues{11: make([]byte, 32)}, chip.PCRValues{11: append(make([]byte, 31), 1)}
	bad, unknown := sign(t, chip.BankSHA256, zero, nil), sign(t, chip.BankSHA256, zero, nil)
	bad["sig"] = base64.StdEncoding.EncodeToString(make([]byte, 256))
	unknown["pkfp"] = strings.Repeat("11", 32)
	h.PublicKey = new("")
	h.Signature = signatureFileOf(t, map[string][]map[string]any{"sha256": {
		sign(t, chip.BankSHA256, zero, nil), sign(t, chip.BankSHA256, old, nil), sign(t, chip.BankSHA256, zero, &ref), bad, unknown,
	}, "sha1": {sign(t, chip.BankSHA1, chip.PCRValues{11: make([]byte, 20)}, nil)}})
	got, err := h.VerifySignatures(t.Context(), &VerifyRequest{Volume: tokens.Volume{Tokens: []luks2.Token{asToken(6, e.Token)}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		bank, key        string
		current, unlocks bool
		tokens           int
	}{
		{"sha1", "good", true, false, 0}, {"sha256", "good", true, true, 1}, {"sha256", "good", false, false, 1}, {"sha256", "good", true, false, 0},
		{"sha256", "bad", true, false, 0}, {"sha256", "unknown", true, false, 0},
	} {
		v := got.Entries[i]
		if v.Bank != want.bank || v.Key != want.key || v.Current != want.current || v.Unlocks != want.unlocks || len(v.Tokens) != want.tokens {
			t.Errorf("entry %d: %+v, want %+v", i, v, want)
		}
	}
	if !slices.Equal(got.Entries[1].Tokens, []int{6}) {
		t.Errorf("tokens %v", got.Entries[1].Tokens)
	}
}

func TestMalformedSignatureFiles(t *testing.T) {
	t.Parallel()
	good := sign(t, chip.BankSHA256, chip.PCRValues{11: make([]byte, 32)}, nil)
	for name, c := range map[string]struct {
		change func(map[string]any)
		want   string // in the error; empty: skipped
	}{
		"no pkfp":      {func(m map[string]any) { delete(m, "pkfp") }, ""},
		"no sig":       {func(m map[string]any) { delete(m, "sig") }, ""},
		"no pcrs":      {func(m map[string]any) { delete(m, "pcrs") }, ""},
		"PCR 24":       {func(m map[string]any) { m["pcrs"] = []int{24} }, `"pcrs"`},
		"PCR twice":    {func(m map[string]any) { m["pcrs"] = []int{11, 11} }, `"pcrs"`},
		"short pol":    {func(m map[string]any) { m["pol"] = "00" }, `"pol"`},
		"pkfp no hex":  {func(m map[string]any) { m["pkfp"] = strings.Repeat("zz", 32) }, `"pkfp"`},
		"sig no text":  {func(m map[string]any) { m["sig"] = 7 }, `"sig"`},
		"sig not b64":  {func(m map[string]any) { m["sig"] = "!" }, `"sig"`},
		"ref a number": {func(m map[string]any) { m["ref"] = 1 }, `"ref"`},
	} {
		entry := map[string]any{}
		for k, v := range good {
			entry[k] = v
		}
		c.change(entry)
		text, _ := json.Marshal(map[string]any{"sha256": []any{entry}, "md5": 7})
		list, err := policy.ParseSignatures(text)
		if c.want == "" && (err != nil || len(list) != 0) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d entries, %v", name, len(list), err)
		}
	}
	for _, text := range []string{"", "[]", `{"sha256":5}`, `{"sha256":[5]}`, "null"} {
		if _, err := policy.ParseSignatures([]byte(text)); err == nil {
			t.Errorf("%q is taken for a signature file", text)
		}
	}
}
