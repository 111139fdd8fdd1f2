package tpm2

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/tokens"
)

// TestUnprovenTokenReplacesNothing seals for a state that the machine is not in: a
// typing error in the value must not cost the token that works.
func TestUnprovenTokenReplacesNothing(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "7+11")
	old := enrolled(t, h).Token
	later := handlerFor(t, swtpm.Device())
	later.PCRs = mustPCRs(t, fmt.Sprintf("7+11:sha256=%x", sha256.Sum256([]byte("the next kernel"))))
	resealed, _, err := reseal(t, later, old, nil)
	if err != nil {
		t.Fatal(err)
	}
	enrolledToo, err := tryEnroll(t, later, having(asToken(4, old)))
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*tokens.Enrollment{"reseal": resealed, "enrol": enrolledToo} {
		notes := strings.Join(e.Notes, "\n")
		if len(e.Replaces) != 0 || !strings.Contains(notes, "Not tested now: it is for the PCR values that were given") || !strings.Contains(notes, "Keyslot 1 (tpm2) stays") {
			t.Errorf("%s: replaces %v, notes:\n%s", name, e.Replaces, notes)
		}
	}
	again, err := tryEnroll(t, later, having(asToken(4, old), asToken(5, enrolledToo.Token)))
	if err != nil || unchanged(again) != 5 {
		t.Errorf("once more: %+v, %v, want token 5 unchanged", again, err)
	}
}

// TestResealCannotReplaceASignature: binding a signed policy to the present state
// takes a signature, not another key.
func TestResealCannotReplaceASignature(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs, h.PublicKey, h.Signature = mustPCRs(t, "7"), new(publicKeyPath), new("testdata/tpm2-pcr-signature.json")
	old := enrolled(t, h).Token
	update(swtpm)
	_, _, err := reseal(t, h, old, nil)
	if !errors.Is(err, tokens.ErrPolicy) || !strings.Contains(err.Error(), "same policy") || !strings.Contains(err.Error(), "no signature approves") {
		t.Errorf("%v, want ErrPolicy with the reason", err)
	}
	checkNothingLoaded(t, swtpm)
}

// TestDeadTokenSaysHowToRepairIt asks another TPM.
func TestDeadTokenSaysHowToRepairIt(t *testing.T) {
	t.Parallel()
	old := enrolled(t, handlerFor(t, testenv.StartTPM(t, testenv.TPMOptions{}).Device())).Token
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	req := &tokens.UnlockRequest{Tokens: []luks2.Token{asToken(0, old)}, Volume: tokens.Volume{Device: "/dev/sda2"}}
	for _, cause := range []string{"no key at handle 0x81000001", "sealed by another TPM"} {
		_, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), req, nil)
		hint := hintOf(err)
		if !errors.Is(err, tokens.ErrOtherDevice) || !strings.Contains(err.Error(), cause) || !strings.Contains(hint, "cryptenroll reseal --slot=1 --tpm2-device="+swtpm.Device()+" /dev/sda2") {
			t.Errorf("%v (hint: %s), want %q and the command that repairs it", err, hint, cause)
		}
		enrolled(t, handlerFor(t, swtpm.Device())) // makes the SRK
	}
}

// TestAbsentTPMSaysWhatToDo: nobody can plug in a TPM.
func TestAbsentTPMSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for device, want := range map[string]string{
		"auto": "firmware setup", "/dev/tpmrm99": "--tpm2-device=list", "swtpm:path=/nonexistent/socket": "swtpm",
	} {
		_, err := handlerFor(t, "").connect(t.Context(), device)
		if !errors.Is(err, tokens.ErrNoDevice) || !strings.Contains(hintOf(err), want) {
			t.Errorf("%s: %v (hint: %s), want a hint with %q", device, err, hintOf(err), want)
		}
	}
}

// hintOf is the next step that an error names.
func hintOf(err error) string {
	hinted, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !ok {
		return ""
	}
	return hinted.Hint()
}

func TestOldestSystemd(t *testing.T) {
	t.Parallel()
	want := map[string]int{
		"t252": 248, "pin252": 251, "t257": 254, "nopcr257": 254, "sha1": 254, "rsa257": 255, "pin257": 254, "off257": 255, "offrsa257": 255, "pcrlock257": 255,
		"pub257": 254, "shard257": 257, "default262": 254, "pindir262": 254, "pub262": 254, "pubref262": 262, "pin262": 262, "lanes262": 262, "offpin262": 262,
	}
	got := map[string]int{}
	for name, raw := range samples(t) {
		got[name] = OldestSystemd(raw)
		if got[name] != want[name] {
			t.Errorf("%s: %d, want %d", name, got[name], want[name])
		}
	}
	if len(got) != len(want) || OldestSystemd([]byte(`{"type":"systemd-tpm2"}`)) != 0 {
		t.Errorf("%d samples", len(got))
	}
}
