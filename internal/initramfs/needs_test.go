package initramfs

import (
	"slices"
	"strings"
	"testing"

	"luksmith/tokens/all"
)

func TestCiphers(t *testing.T) {
	for spec, want := range map[string]string{
		"aes-xts-plain64":                 "dm_crypt crypto-aes crypto-xts",
		"aes-cbc-essiv:sha256":            "dm_crypt crypto-aes crypto-cbc crypto-essiv crypto-sha256",
		"xchacha12,aes-adiantum-plain64":  "dm_crypt crypto-xchacha12 crypto-aes crypto-adiantum",
		"capi:xts(aes)-plain64":           "dm_crypt crypto-xts crypto-aes",
		"capi:authenc(hmac(sha256),aes)-": "dm_crypt crypto-authenc crypto-hmac crypto-sha256 crypto-aes",
		"serpent-xts-plain64":             "dm_crypt crypto-serpent crypto-xts",
		"":                                "dm_crypt",
		"capi:":                           "dm_crypt",
	} {
		n := &Needs{}
		n.AddCipher(spec)
		if got := strings.Join(n.Modules, " "); got != want {
			t.Errorf("%q: %s", spec, got)
		}
	}
}

// TestUnknownVolumeNeedsEverything: what the header calls for is a part of it.
func TestUnknownVolumeNeedsEverything(t *testing.T) {
	n := &Needs{}
	n.AddUnknown(all.New())
	for _, h := range []string{"luksmith-fido2", "luksmith-pkcs11"} {
		if !slices.Contains(n.Helpers, h) {
			t.Errorf("%s is missing: %v", h, n.Helpers)
		}
	}
	if !slices.Contains(n.Folders, "drivers/char/tpm") || !slices.Contains(n.Modules, "usbhid") {
		t.Errorf("%+v", n)
	}
}
