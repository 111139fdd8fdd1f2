package tpm2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// attrEncrypt is a bit of TPMA_SESSION.
const attrEncrypt = 1 << 6

// commandNames are the commands that this package sends.
var commandNames = map[tpm2.TPMCC]string{
	tpm2.TPMCCLoad: "Load", tpm2.TPMCCStartAuthSession: "StartAuthSession", tpm2.TPMCCPolicyPCR: "PolicyPCR", tpm2.TPMCCUnseal: "Unseal",
	tpm2.TPMCCFlushContext: "FlushContext", tpm2.TPMCCPolicyAuthValue: "PolicyAuthValue", tpm2.TPMCCLoadExternal: "LoadExternal",
	tpm2.TPMCCVerifySignature: "VerifySignature", tpm2.TPMCCPolicyAuthorize: "PolicyAuthorize", tpm2.TPMCCPolicyGetDigest: "PolicyGetDigest",
	tpm2.TPMCCCreatePrimary: "CreatePrimary", tpm2.TPMCCImport: "Import", tpm2.TPMCCPolicyAuthorizeNV: "PolicyAuthorizeNV", tpm2.TPMCCPolicyOR: "PolicyOR",
	tpm2.TPMCCReadPublic: "ReadPublic", tpm2.TPMCCPCRRead: "PCR_Read", tpm2.TPMCCCreate: "Create", tpm2.TPMCCGetCapability: "GetCapability",
	tpm2.TPMCCEvictControl: "EvictControl",
}

func namesOf(list []testenv.TPMCommand) []string {
	var names []string
	for _, c := range list {
		name := commandNames[tpm2.TPMCC(c.Code)]
		if name == "" {
			name = fmt.Sprintf("%#x", c.Code)
		}
		names = append(names, name)
	}
	return names
}

// checkCount wants at most so many commands in swtpm's own log since Mark.
func checkCount(t *testing.T, swtpm *testenv.TPM, most int) []testenv.TPMCommand {
	t.Helper()
	list := swtpm.Commands()
	if len(list) > most {
		t.Errorf("%d TPM commands, want at most %d: %s", len(list), most, strings.Join(namesOf(list), " "))
	}
	return list
}

// TestUnlockCommandCounts is a promise of docs/tpm2.md.
func TestUnlockCommandCounts(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	for name, most := range map[string]int{
		"systemd257-tpm2-nopcr": 5, "systemd257-tpm2-pcr": 6, "systemd262-tpm2-pcr": 6, "systemd252-tpm2-pcr": 8,
		"systemd257-tpm2-pin": 7, "systemd262-tpm2-pin-direct": 7, "systemd252-tpm2-pin": 9,
		"systemd257-tpm2-signed": 10, "systemd257-tpm2-pcrlock": 7, "systemd257-tpm2-offline": 7,
	} {
		t.Run(name, func(t *testing.T) {
			f := fixtureNamed(t, name)
			h := handlerFor(t, swtpm.Device())
			h.Signature = new("testdata/tpm2-pcr-signature.json")
			h.PCRLock = new("testdata/pcrlock.json")
			swtpm.Mark()
			if _, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...); err != nil {
				t.Fatal(err)
			}
			checkCount(t, swtpm, most)
		})
	}
}

// enrolled is an enrolment's token, ready to unlock with.
func enrolled(t testing.TB, h *Handler, answers ...string) *tokens.Enrollment {
	t.Helper()
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: newestSystemd}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Passphrase.Wipe)
	return e
}

// TestCommandCountsOfOwnTokens counts enrolling with proof, and unlocking with a
// literal PCR, a PIN, a signature and all of them.
func TestCommandCountsOfOwnTokens(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	for _, c := range []struct {
		name           string
		signed, pin    bool
		enroll, unlock int
	}{
		{"PCR", false, false, 12, 6},
		{"PIN", false, true, 13, 7},
		{"signed", true, false, 16, 10},
		{"both", true, true, 17, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := handlerFor(t, swtpm.Device())
			h.PCRs = mustPCRs(t, "0+1+2+3+4+5+6+7")
			var answers []string
			if c.pin {
				h.WithPIN, answers = PINDirect, []string{"4711"}
			}
			if c.signed {
				h.PublicKey = new("testdata/tpm2-pcr-public-key.pem")
				h.Signature = new("testdata/tpm2-pcr-signature.json")
			}
			swtpm.Mark()
			e := enrolled(t, h, answers...)
			checkCount(t, swtpm, c.enroll)
			swtpm.Mark()
			if _, err := unlockToken(t, h, asToken(0, e.Token), answers...); err != nil {
				t.Fatal(err)
			}
			checkCount(t, swtpm, c.unlock)
		})
	}
}

// TestSessionIsSaltedToTheSRKAndEncrypts looks at the bytes that swtpm received.
func TestSessionIsSaltedToTheSRKAndEncrypts(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	swtpm.Mark()
	f := fixtureNamed(t, "systemd257-tpm2-pin")
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, f.Token), f.PIN); err != nil {
		t.Fatal(err)
	}
	list := swtpm.Commands()
	start := slices.IndexFunc(list, func(c testenv.TPMCommand) bool { return tpm2.TPMCC(c.Code) == tpm2.TPMCCStartAuthSession })
	unseal := slices.IndexFunc(list, func(c testenv.TPMCommand) bool { return tpm2.TPMCC(c.Code) == tpm2.TPMCCUnseal })
	if start < 0 || unseal < start {
		t.Fatalf("commands: %v", namesOf(list))
	}
	if key := binary.BigEndian.Uint32(list[start].Command[10:]); key != uint32(chip.HandleSRK) {
		t.Errorf("the session is salted to %#x, want %#x", key, uint32(chip.HandleSRK))
	}
	// Unseal: header, item handle, size of the authorization area, session handle,
	// nonce, attributes.
	area := list[unseal].Command[10+4+4+4:]
	nonce, rest, err := chip.Cut2B(area)
	if err != nil || len(nonce) < 16 || rest[0]&attrEncrypt == 0 {
		t.Errorf("Unseal has a nonce of %d bytes and the attributes %#x, want encrypt", len(nonce), rest[0])
	}
}

// alternatives are tokens of which the last one alone fits.
func alternatives(t testing.TB, swtpm *testenv.TPM, n int) (list []luks2.Token) {
	t.Helper()
	for i := range n {
		if i > 0 {
			swtpm.Extend(7, "sha256", make([]byte, 32))
		}
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, []string{"7", "7+11"}[i%2]+"+8")
		list = append(list, asToken(i, enrolled(t, h).Token))
	}
	return list
}

// TestAlternativesCostNoCommandEach: a machine with many versions of its system has
// a token for each. Those that cannot fit are ruled out by one reading of the PCRs.
func TestAlternativesCostNoCommandEach(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	list := alternatives(t, swtpm, 8)
	h := handlerFor(t, swtpm.Device())
	unlock := func() (*tokens.Unlocked, error) {
		swtpm.Mark()
		return h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: list}, tokentest.NewUI(t))
	}
	got, err := unlock()
	if err != nil || got.Token.ID != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Passphrase.Wipe()
	checkCount(t, swtpm, 7)
	swtpm.Extend(7, "sha256", make([]byte, 32))
	_, err = unlock()
	checkCount(t, swtpm, 2)
	if !errors.Is(err, tokens.ErrPolicy) || strings.Count(err.Error(), "PCR 7 (secure-boot-policy") != 8 {
		t.Errorf("%v, want the reason of each", err)
	}
}
