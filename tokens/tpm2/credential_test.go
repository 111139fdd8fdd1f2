package tpm2

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicyThatCameWithTheKernel unlocks where systemd-pcrlock's policy is nowhere but
// among the credentials of the boot stub.
func TestPolicyThatCameWithTheKernel(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	f := fixtureNamed(t, "systemd257-tpm2-pcrlock")
	for name, folder := range map[string]string{"pcrlock-252.cred": ".extra/global_credentials", "pcrlock-257.cred": "run/credentials/@encrypted"} {
		h := handlerFor(t, swtpm.Device())
		if _, err := unlockToken(t, h, asToken(0, f.Token)); err == nil || !strings.Contains(err.Error(), "pcrlock policy was not found") {
			t.Errorf("without the policy: %v", err)
		}
		folder = filepath.Join(h.Paths.Root, folder)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		// One that is of no use stands in the way.
		for file, text := range map[string][]byte{"pcrlock.1.cred": []byte("rubbish"), "pcrlock.2.cred": readTestFile(t, filepath.Join("testdata", name))} {
			if err := os.WriteFile(filepath.Join(folder, file), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unlockToken(t, h, asToken(0, f.Token)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	text := readTestFile(t, "testdata/pcrlock-257.cred")
	raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range [][]byte{text, raw} {
		if got, err := openCredential(form); err != nil || !bytes.Equal(got, readTestFile(t, "testdata/pcrlock.json")) {
			t.Errorf("%v\n%s", err, got)
		}
	}
	changed := func(at int) []byte {
		b := bytes.Clone(raw)
		b[at] ^= 1
		return b
	}
	for want, b := range map[string][]byte{
		"is not a credential that needs no key": changed(0), "unknown form": changed(16), "damaged": changed(len(raw) - 1), "is a damaged": raw[:len(raw)-1],
		"needs no key": raw[:40], "is not a credential": nil,
	} {
		if _, err := openCredential(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
