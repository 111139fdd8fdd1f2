package tpm2

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// tryEnroll enrols on a volume that has tokens already.
func tryEnroll(t testing.TB, h *Handler, req *tokens.EnrollRequest, answers ...string) (*tokens.Enrollment, error) {
	t.Helper()
	if req.Compat == 0 {
		req.Compat = newestSystemd
	}
	e, err := h.Enroll(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if e != nil {
		t.Cleanup(e.Passphrase.Wipe)
	}
	return e, err
}

func having(list ...luks2.Token) *tokens.EnrollRequest {
	return &tokens.EnrollRequest{Volume: tokens.Volume{Tokens: list}}
}

func TestEnrollMakesTheSRK(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	first := tokenOf(t, enrolled(t, handlerFor(t, swtpm.Device())).Token)
	swtpm.Mark()
	second := tokenOf(t, enrolled(t, handlerFor(t, swtpm.Device())).Token)
	if string(first.Parent.Public) != string(second.Parent.Public) || first.Parent.Handle != chip.HandleSRK {
		t.Error("the second enrolment has another parent")
	}
	if slices.Contains(namesOf(swtpm.Commands()), "CreatePrimary") {
		t.Error("the SRK is made again")
	}
	// Template L-2 of the TCG: what systemd-tpm2-setup makes.
	want := unhex(t, "0023000b00030472000000060080004300100003001000200000")
	if got := first.Parent.Public[:22]; string(got) != string(want[:22]) {
		t.Errorf("the SRK's public part begins with %x, want %x", got, want[:22])
	}
}

func TestEnrollSameAgainChangesNothing(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "7+11")
	first := asToken(2, enrolled(t, h).Token)
	other := asToken(3, json.RawMessage(`{"type":"systemd-recovery","keyslots":["3"]}`))
	other.Type = "systemd-recovery"
	e, err := tryEnroll(t, h, having(other, first))
	if err != nil || unchanged(e) != 2 || e.Token != nil || e.Passphrase.Len() != 0 || len(e.Replaces) != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	// A dead one beside it changes nothing.
	update(swtpm)
	dead := asToken(4, enrolled(t, h).Token)
	swtpm.Reset()
	if e, err := tryEnroll(t, h, having(dead, first)); err != nil || unchanged(e) != 2 || len(e.Replaces) != 0 {
		t.Fatalf("with a dead token: %+v, %v", e, err)
	}
	// In another state the same options give another token, and the dead one goes.
	update(swtpm)
	e, err = tryEnroll(t, h, having(other, first))
	if err != nil || e.Unchanged != nil || !slices.Equal(e.Replaces, []int{2}) {
		t.Fatalf("%+v, %v", e, err)
	}
	// Other options are another token, and the first stays.
	h.PCRs = mustPCRs(t, "7")
	if e, err = tryEnroll(t, h, having(other, first)); err != nil || e.Unchanged != nil || len(e.Replaces) != 0 {
		t.Errorf("other PCRs: %+v, %v", e, err)
	}
}

func TestEnrollReplaces(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "7")
	labelled := func(label string) luks2.Token {
		e, err := tryEnroll(t, h, &tokens.EnrollRequest{Label: label})
		if err != nil {
			t.Fatal(err)
		}
		return asToken(1, e.Token)
	}
	old := labelled("laptop")
	for name, c := range map[string]struct {
		label     string
		pcrs      string
		pin       PINMode
		compat    int
		unchanged int
		replaces  []int
	}{
		"same label and options":    {"laptop", "7", PINNone, 0, 1, nil},
		"no label, same options":    {"", "7", PINNone, 0, 1, nil},
		"same label, other options": {"laptop", "11", PINNone, 0, -1, []int{1}},
		"other label":               {"rollback", "7", PINNone, 0, -1, nil},
		"no label, other options":   {"", "11", PINNone, 0, -1, nil},
		"with PIN":                  {"", "7", PINDirect, 0, -1, nil},
		"for systemd 252":           {"", "7", PINNone, 252, -1, nil},
	} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs, h.WithPIN = mustPCRs(t, c.pcrs), c.pin
		req := having(old)
		req.Label, req.Compat = c.label, c.compat
		var answers []string
		if c.pin != PINNone {
			answers = []string{"4711"}
		}
		e, err := tryEnroll(t, h, req, answers...)
		if err != nil || unchanged(e) != c.unchanged || !slices.Equal(e.Replaces, c.replaces) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// TestEnrolReplacesTokenOfAClearedTPM: systemd says "already enrolled" and leaves
// the dead one.
func TestEnrollReplacesTokenOfAClearedTPM(t *testing.T) {
	t.Parallel()
	old := enrolled(t, handlerFor(t, testenv.StartTPM(t, testenv.TPMOptions{}).Device()))
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	e, err := tryEnroll(t, handlerFor(t, swtpm.Device()), having(asToken(0, old.Token)))
	if err != nil || !slices.Equal(e.Replaces, []int{0}) || e.Unchanged != nil {
		t.Fatalf("%+v, %v", e, err)
	}
	if !strings.Contains(strings.Join(e.Notes, "\n"), "Keyslot 1 (tpm2) was sealed by another TPM") {
		t.Errorf("notes %q", e.Notes)
	}
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, old.Token)); !errors.Is(err, tokens.ErrOtherDevice) {
		t.Errorf("unlocking the dead one: %v, want ErrOtherDevice", err)
	}
}

// TestEnrolForOldSystemd looks at the form of the token.
func TestEnrollForOldSystemd(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for compat := 248; compat <= 262; compat++ {
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, "7")
		e, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: compat})
		if err != nil {
			t.Fatalf("%d: %v", compat, err)
		}
		m, err := tokens.Members(e.Token)
		if err != nil {
			t.Fatal(err)
		}
		for member, want := range map[string]bool{
			memberBank: compat >= 250, memberPrimaryAlg: compat >= 250, memberPIN: compat >= 251 && compat < 256, memberSRK: compat >= 254,
			memberPCRLock: compat == 255, memberSalt: false, memberPubkey: false,
		} {
			if _, has := m[member]; has != want {
				t.Errorf("%d: member %s is there: %v", compat, member, has)
			}
		}
		if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
			t.Errorf("%d: %v", compat, err)
		}
	}
}

func TestForeignParent(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, swtpm, func(c *chip.Conn) {
		if err := persist(t, c, chip.StorageTemplate("rsa", true), 0x81000002); err != nil {
			t.Fatal(err)
		}
	})
	h := handlerFor(t, swtpm.Device())
	h.ParentHandle, h.WithPIN = 0x81000002, PINDirect
	e := enrolled(t, h, "4711")
	if tok := tokenOf(t, e.Token); tok.Parent.Handle != 0x81000002 || tok.primaryAlg != "rsa" {
		t.Errorf("%+v", tok.Parent)
	}
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, e.Token), "4711"); err != nil {
		t.Error(err)
	}
	h.ParentHandle = 0x81000003
	if _, err := tryEnroll(t, h, having()); !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), "no key at handle 0x81000003") {
		t.Errorf("a handle without key: %v", err)
	}
}

// TestRSAStorageRootKey is used as it is, as on machines where other systems made
// it.
func TestRSAStorageRootKey(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, swtpm, func(c *chip.Conn) {
		if err := persist(t, c, chip.StorageTemplate("rsa", true), chip.HandleSRK); err != nil {
			t.Fatal(err)
		}
	})
	h := handlerFor(t, swtpm.Device())
	e := enrolled(t, h)
	if tok := tokenOf(t, e.Token); tok.primaryAlg != "rsa" {
		t.Errorf("primary-alg is %s", tok.primaryAlg)
	}
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Error(err)
	}
}

// TestExplicitValuesOfAnotherState are enrolled for the next boot, unproven.
func TestExplicitValuesOfAnotherState(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "7+11:sha256="+fmt.Sprintf("%064d", 1))
	e := enrolled(t, h)
	if !strings.Contains(strings.Join(e.Notes, "\n"), "Not tested now: it is for the PCR values that were given") {
		t.Errorf("notes %q", e.Notes)
	}
	again, err := tryEnroll(t, h, having(asToken(0, e.Token)))
	if err != nil || unchanged(again) != 0 {
		t.Errorf("the same again: %+v, %v", again, err)
	}
}

// unchanged is the id of the token that stays as it is, -1 without one.
func unchanged(e *tokens.Enrollment) int {
	if e.Unchanged == nil {
		return -1
	}
	return e.Unchanged.ID
}
