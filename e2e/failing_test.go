package e2e

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestFailingSourcesEndAtThePrompt combines sources that really fail. Whatever they
// are, somebody is asked once, although tries is 1, and the report has them all.
func TestFailingSourcesEndAtThePrompt(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	image, tpm := deadVolume(t)
	u := newUnit(t, Boot(t, keyConfig(t, Config{TPM: tpm.StateDir()})))
	disk := u.AddDisk(t, Disk{Path: image})
	u.WriteFile(t, "/run/wrong-key", []byte("wrong"), 0o600)
	server, _ := u.silentServer(t)
	type source struct{ text, failure string }
	tokens := []source{
		{},
		{"tpm2-device=auto", "tpm2 token: "}, // sealed by another TPM
		{"fido2-device=auto,token-timeout=500ms", "fido2 token: timed out waiting"},       // not plugged in
		{"tpm2-device=auto,fido2-device=auto,token-timeout=500ms", "tpm2, fido2 token: "}, // both
	}
	files := []source{
		{"-", ""},
		{"/run/absent", "key file /run/absent: no such file"},
		{"/run/wrong-key", "key file /run/wrong-key: "},
		{server, "key file /run/silent-server: no key came within"},
		{"/key:LABEL=absent", "key file /key on LABEL=absent: "},
	}
	for _, token := range tokens {
		for _, file := range files {
			for _, more := range []source{{}, {"wrong", "key file /run/cryptsetup-keys.d/vol.key: "}} {
				if more.text != "" && token.text != "" { // it only comes after the other file
					continue
				}
				t.Run(fmt.Sprintf("%s %s %s", token.text, file.text, more.text), func(t *testing.T) {
					u.Shell(t, "rm -rf /run/cryptsetup-keys.d")
					if more.text != "" {
						u.WriteFile(t, "/run/cryptsetup-keys.d/vol.key", []byte(more.text), 0o600)
					}
					after := "2s" // by then the others have failed
					if more.text != "" || file.text == "/run/wrong-key" {
						after = "10s" // each wrong key takes a KDF, which busy machines emulate slowly
					}
					agent := u.agent(t, "--after", after, "+"+passphrase)
					u.attach(t, "vol", disk, file.text, strings.TrimPrefix(token.text+",keyfile-timeout=500ms,tries=1,password-cache=no", ","))
					if asked := agent.Wait(t).Stdout; strings.Count(asked, "Id=cryptsetup:"+disk+"\n") != 1 {
						t.Errorf("asked: %s", asked)
					}
					r := u.report(t, "vol")
					var failed string
					for _, f := range r.Failures {
						failed += f.Way + ": " + f.Error + "\n"
					}
					for _, s := range []source{token, file, more} {
						if s.failure != "" && !strings.Contains(failed, s.failure) {
							t.Errorf("the report lacks %q: %s", s.failure, failed)
						}
					}
					if r.Opened.By != fromAgent {
						t.Errorf("opened by %s", r.Opened.By)
					}
				})
			}
		}
	}
}

// deadVolume is a volume with a token for a FIDO2 key and one for another TPM than
// the one returned.
func deadVolume(t *testing.T) (image string, tpm *testenv.TPM) {
	t.Helper()
	image = copyOf(t, makeSample(t).image)
	other := testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	enroll(t, image, nil, "--tpm2-device="+other.Device(), "--tpm2-pcrs=")
	enrollKey(t, image)
	tpm = testenv.StartTPM(t, testenv.TPMOptions{})
	tpm.Stop()
	return image, tpm
}

// enrolTPM seals a key for the state in which guests boot.
func enrollTPM(t testing.TB, tpm *testenv.TPM, image string, env []string, args ...string) {
	t.Helper()
	separator := sha256.Sum256([]byte{0xff, 0xff, 0xff, 0xff}) // what the guest's firmware measures
	tpm.Reset()                                                // systemd leaves sessions behind, and there are three
	tpm.Extend(7, "sha256", separator[:])
	enroll(t, image, env, append(args, "--tpm2-device="+tpm.Device())...)
	tpm.Shutdown()
}
