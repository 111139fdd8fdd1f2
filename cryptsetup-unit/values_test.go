package main

import (
	"slices"
	"strings"
	"testing"

	"luksmith/tokens/all"
)

// TestOptionValuesThatSystemdTakesDoNotEndTheAttach: with the right key file there is a
// mapping, whatever a token type thinks of its options.
func TestOptionValuesThatSystemdTakesDoNotEndTheAttach(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"tpm2-pcrs=7:sha256", "tpm2-pcrs=7:SHA256", "tpm2-pcrs=0x7", "tpm2-pcrs=07+010", "tpm2-pcrs=7+7", "tpm2-pcrs=+", "tpm2-pcrs=7:", `tpm2-pcrs=7\,8`,
		"tpm2-pcrs=7:sha256=0X" + strings.Repeat("aB", 32), "tpm2-measure-bank=SHA256", "tpm2-measure-bank=sha256:sha256:", "tpm2-pin=maybe", "fido2-pin=maybe",
		"tpm2-device=foo", "tpm2-device=", "tpm2-device=swtpm:port=x", "fido2-device=", "fido2-rp=a b,fido2-device=auto", "fido2-cid=", "fido2-cid=YQ==,fido2-rp=",
		"pkcs11-uri=pkcs11:foo", "pkcs11-uri=pkcs11:token=a;token=b", "tpm2-signature=/a\x01b,tpm2-device=auto"} {
		b := newBench(t)
		b.newHandlers = all.New
		if _, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), options+",headless,token-timeout=1ms"); err != nil || len(b.mapped) != 1 {
			t.Errorf("%q: %v\n%s", options, err, b.messages)
		}
	}
}

// TestMeasureOptionsMeanOneThing: 0xf was called ignored, twice, and measured.
func TestMeasureOptionsMeanOneThing(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{"tpm2-measure-pcr=0xf": "15 [] ", "tpm2-measure-pcr=yes,tpm2-measure-bank=SHA-256:sha256": "15 [sha256] ", "tpm2-measure-pcr=no": "",
		"tpm2-measure-pcr=11,tpm2-measure-bank=sha1:SHA384": "11 [sha1 sha384] ", "tpm2-measure-pcr=system-identity": "", "luksmith-latch,tpm2-measure-bank=sha256": "15 [sha256] "} {
		b := newBench(t)
		_, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), options+",headless")
		if err != nil || want != "" && len(b.measured) != 1 || want != "" && !strings.HasPrefix(b.measured[0], want) || want == "" && len(b.measured) != 0 {
			t.Errorf("%s: %v, measured %q", options, err, b.measured)
		}
		if ignored := strings.Count(b.messages.String(), "invalid value"); ignored != 0 && options != "tpm2-measure-pcr=system-identity" || ignored > 1 {
			t.Errorf("%s: %s", options, b.messages)
		}
	}
}

// TestRefusedOptionIsTheReasonOfItsWay wants the reason where the way fails, and the
// other types untouched.
func TestRefusedOptionIsTheReasonOfItsWay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.newHandlers = all.New
	r, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), "tpm2-device=foo,headless")
	if err != nil || !slices.ContainsFunc(r.Failures, func(f failureReport) bool {
		return f.Way == "tpm2 token" && strings.Contains(f.Error, `options: tpm2-device=foo: "foo" is neither auto`)
	}) {
		t.Errorf("%v, %+v", err, r.Failures)
	}
}
