package tpm2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// reseal re-seals token 4; answers are typed.
func reseal(t testing.TB, h *Handler, raw json.RawMessage, change func(*ResealRequest), answers ...string) (*tokens.Enrollment, *tokentest.UI, error) {
	t.Helper()
	ui := tokentest.NewUI(t, tokentest.Typed(answers...)...)
	tok := asToken(4, raw)
	req := &ResealRequest{Volume: tokens.Volume{Tokens: []luks2.Token{tok}}, Token: tok, Compat: newestSystemd}
	if change != nil {
		change(req)
	}
	e, err := h.Reseal(t.Context(), req, ui)
	if e != nil {
		t.Cleanup(e.Passphrase.Wipe)
	}
	return e, ui, err
}

// update measures something into PCR 11.
func update(swtpm *testenv.TPM) {
	digest := sha256.Sum256([]byte("a new kernel"))
	swtpm.Extend(11, "sha256", digest[:])
}

func TestUpdateThenReseal(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]PINMode{"no PIN": PINNone, "direct": PINDirect, "argon2id": PINArgon2id} {
		t.Run(name, func(t *testing.T) {
			swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
			h := handlerFor(t, swtpm.Device())
			h.PCRs, h.WithPIN = mustPCRs(t, "7+11"), mode
			if mode == PINArgon2id {
				h.Argon2id = Argon2idCost{Memory: 8 << 20, Iterations: 1}
			}
			var answers []string
			if mode != PINNone {
				answers = []string{"4711"}
			}
			first, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: newestSystemd, Label: "laptop"}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
			if err != nil {
				t.Fatal(err)
			}
			defer first.Passphrase.Wipe()
			plain := handlerFor(t, swtpm.Device()) // reseal takes the options from the token
			if e, ui, err := reseal(t, plain, first.Token, func(r *ResealRequest) { r.IfNeeded = true }); err != nil || unchanged(e) != 4 || e.Token != nil || len(ui.Prompts()) != 0 {
				t.Fatalf("while it opens: %+v, %v", e, err)
			}
			update(swtpm)
			if pe := policyError(t, plain, first.Token); !slices.Equal(numbers(pe), []int{11}) {
				t.Fatalf("%v, want PCR 11", pe)
			}
			second, ui, err := reseal(t, plain, first.Token, func(r *ResealRequest) { r.IfNeeded = true }, answers...)
			if err != nil {
				t.Fatal(err)
			}
			if len(ui.Prompts()) != len(answers) || len(ui.Prompts()) > 0 && ui.Prompts()[0].New {
				t.Errorf("prompts %+v, want the PIN once", ui.Prompts())
			}
			if !slices.Equal(second.Replaces, []int{4}) || second.Unchanged != nil || second.Label != "laptop" || second.Passphrase.Equal(first.Passphrase) {
				t.Errorf("%+v", second)
			}
			if got, err := unlockToken(t, plain, asToken(5, second.Token), answers...); err != nil || !got.Passphrase.Equal(second.Passphrase) {
				t.Errorf("the new token: %v", err)
			}
			before, after := tokenOf(t, first.Token), tokenOf(t, second.Token)
			if after.extra.Label != "laptop" || after.PCRs != before.PCRs || after.PIN != before.PIN || (after.argon == nil) != (before.argon == nil) ||
				bytes.Equal(after.salt, before.salt) && after.PIN {
				t.Errorf("options of the token changed: %+v", after)
			}
		})
	}
}

func tokenOf(t testing.TB, raw json.RawMessage) *token {
	t.Helper()
	tok, err := parseToken(raw)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestResealChecksThePINByTheOldObject(t *testing.T) {
	t.Parallel()
	swtpm, old := pinToken(t)
	update(swtpm)
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "11")
	before := lockoutOf(t, swtpm)
	e, ui, err := reseal(t, h, old.Raw, nil, "wrong", "4711")
	if err != nil {
		t.Fatal(err)
	}
	checkTries(t, swtpm, before, 1)
	if p := ui.Prompts(); len(p) != 2 || p[1].Attempt != 1 {
		t.Errorf("prompts %+v", p)
	}
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, e.Token), "4711"); err != nil {
		t.Error(err)
	}
	if tok := tokenOf(t, e.Token); tok.PCRs != chip.PCRSetOf(11) {
		t.Errorf("bound to PCR %s, want 11 as given", tok.PCRs)
	}
}

func TestResealOnAnotherTPMSaysThatThePINIsUnchecked(t *testing.T) {
	t.Parallel()
	_, old := pinToken(t)
	other := testenv.StartTPM(t, testenv.TPMOptions{})
	e, ui, err := reseal(t, handlerFor(t, other.Device()), old.Raw, nil, "0815")
	if err != nil {
		t.Fatal(err)
	}
	if !ui.Prompts()[0].New || !strings.Contains(strings.Join(e.Notes, " "), "could not be checked") {
		t.Errorf("prompts %+v, notes %q", ui.Prompts(), e.Notes)
	}
	if _, err := unlockToken(t, handlerFor(t, other.Device()), asToken(0, e.Token), "0815"); err != nil {
		t.Error(err)
	}
}

func TestResealKeepsTheOldForARollback(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "11")
	first := enrolled(t, h)
	update(swtpm)
	second, _, err := reseal(t, h, first.Token, func(r *ResealRequest) { r.KeepOld, r.Label = true, "new kernel" })
	if err != nil || len(second.Replaces) != 0 || second.Label != "new kernel" {
		t.Fatalf("%+v, %v", second, err)
	}
	// The same once more makes no second one.
	again, _, err := reseal(t, h, first.Token, func(r *ResealRequest) {
		r.KeepOld, r.Label = true, "new kernel"
		r.Volume.Tokens = append(r.Volume.Tokens, asToken(9, second.Token))
	})
	if err != nil || unchanged(again) != 9 || again.Token != nil {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	both := &tokens.UnlockRequest{Tokens: []luks2.Token{asToken(0, first.Token), asToken(1, second.Token)}}
	check := func(superseded int, want ...State) {
		t.Helper()
		list, err := h.Check(t.Context(), both)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range list {
			if s.State != want[i] || (s.Err == nil) != (s.State == Opens || s.State == NeedsPIN) {
				t.Errorf("token %d: %+v, want state %d", i, s, want[i])
			}
			if s.Superseded != (i == superseded) {
				t.Errorf("token %d: superseded is %t", i, s.Superseded)
			}
		}
	}
	check(0, OtherState, Opens)
	swtpm.Reset() // rolled back
	check(1, Opens, OtherState)
	swtpm.Extend(11, "sha256", make([]byte, 32)) // the next update: the newest is meant
	check(0, OtherState, OtherState)
}

func TestCheckStates(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	foreign := enrolled(t, handlerFor(t, testenv.StartTPM(t, testenv.TPMOptions{}).Device()))
	pin := fixtureNamed(t, "systemd257-tpm2-pin").Token
	pcr := fixtureNamed(t, "systemd257-tpm2-pcr").Token
	req := &tokens.UnlockRequest{Tokens: []luks2.Token{
		asToken(0, pcr), asToken(1, pin), asToken(2, foreign.Token), asToken(3, json.RawMessage(changed(t, pin, "tpm2_future", "1"))),
		asToken(4, json.RawMessage(`{}`)), asToken(5, fixtureNamed(t, "systemd257-tpm2-nopcr").Token),
	}, Opens: func(_ context.Context, tok luks2.Token, _ secret.Secret) error {
		if tok.ID == 5 {
			return tokens.ErrWrongKey
		}
		return nil
	}}
	before := lockoutOf(t, swtpm)
	for round, want := range [][]State{{Opens, NeedsPIN, OtherTPM, Unknown, Unknown, NoKeyslot}, {OtherState, OtherState, OtherTPM, Unknown, Unknown, NoKeyslot}} {
		list, err := handlerFor(t, swtpm.Device()).Check(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range list {
			if s.State != want[i] || s.State.Dead() != (want[i] == OtherTPM || want[i] == NoKeyslot) {
				t.Errorf("round %d, token %d: state %d (%v), want %d", round, i, s.State, s.Err, want[i])
			}
		}
		digest := sha256.Sum256(nil)
		swtpm.Extend(7, "sha256", digest[:])
	}
	checkTries(t, swtpm, before, 0)
}

func TestChangePIN(t *testing.T) {
	t.Parallel()
	swtpm, old := pinToken(t)
	h := handlerFor(t, swtpm.Device())
	change := func(verified bool, answers ...string) (*tokens.Enrollment, error) {
		e, err := h.ChangePIN(t.Context(), &ChangePINRequest{Volume: tokens.Volume{}, Token: old, Compat: newestSystemd, Verified: verified},
			tokentest.NewUI(t, tokentest.Typed(answers...)...))
		if e != nil {
			t.Cleanup(e.Passphrase.Wipe)
		}
		return e, err
	}
	for name, c := range map[string]struct {
		verified bool
		answers  []string
	}{"asked": {false, []string{"4711", "0815"}}, "just used": {true, []string{"0815"}}} {
		e, err := change(c.verified, c.answers...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(e.Replaces, []int{old.ID}) {
			t.Errorf("%s: %+v", name, e)
		}
		if _, err := unlockToken(t, h, asToken(1, e.Token), "0815"); err != nil {
			t.Errorf("%s: the new PIN: %v", name, err)
		}
	}
	before := lockoutOf(t, swtpm)
	ui := tokentest.NewUI(t, tokentest.Answer{Text: "wrong"}, tokentest.Answer{Err: tokens.ErrNoPrompt})
	if _, err := h.ChangePIN(t.Context(), &ChangePINRequest{Token: old, Compat: newestSystemd}, ui); !errors.Is(err, tokens.ErrWrongPIN) {
		t.Errorf("a wrong present PIN: %v", err)
	}
	checkTries(t, swtpm, before, 1)
}

// TestChangePINInAnotherState works although the PCRs moved: the policy stays as
// it was.
func TestChangePINInAnotherState(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs, h.WithPIN = mustPCRs(t, "11"), PINDirect
	first := enrolled(t, h, "4711")
	update(swtpm)
	e, err := h.ChangePIN(t.Context(), &ChangePINRequest{Token: asToken(0, first.Token), Compat: newestSystemd}, tokentest.NewUI(t, tokentest.Typed("4711", "0815")...))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	if !strings.Contains(strings.Join(e.Notes, " "), "Not tested now") {
		t.Errorf("notes %q", e.Notes)
	}
	swtpm.Reset()
	if _, err := unlockToken(t, h, asToken(0, e.Token), "0815"); err != nil {
		t.Error(err)
	}
}

func TestChangePINWithoutPIN(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	_, err := h.ChangePIN(t.Context(), &ChangePINRequest{Token: asToken(0, enrolled(t, h).Token)}, tokentest.NewUI(t))
	if !errors.Is(err, tokens.ErrUsage) {
		t.Errorf("%v, want ErrUsage", err)
	}
}

// TestLatch closes once a volume key was measured, and a reseal in the running
// system still binds to zero.
func TestLatch(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs, h.Latch = mustPCRs(t, "7"), true
	e := enrolled(t, h)
	if tok := tokenOf(t, e.Token); tok.PCRs != chip.PCRSetOf(7, 15) || !tok.Latched() {
		t.Errorf("bound to PCR %s", tok.PCRs)
	}
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("volume key"))
	swtpm.Extend(15, "sha256", digest[:])
	if pe := policyError(t, h, e.Token); !slices.Equal(numbers(pe), []int{15}) {
		t.Errorf("%v, want PCR 15", pe)
	}
	if states, err := h.Check(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{asToken(4, e.Token)}}); err != nil || states[0].State != Latched {
		t.Errorf("%v, %v, want Latched", states, err)
	}
	needed, _, err := reseal(t, handlerFor(t, swtpm.Device()), e.Token, func(r *ResealRequest) { r.IfNeeded = true })
	if err != nil || unchanged(needed) != 4 {
		t.Errorf("if needed: %v, %v; the latch alone is no need", needed, err)
	}
	again, _, err := reseal(t, handlerFor(t, swtpm.Device()), e.Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Replaces, []int{4}) {
		t.Errorf("replaces %v, want the old token", again.Replaces)
	}
	if _, err := unlockToken(t, h, asToken(0, again.Token)); !errors.Is(err, tokens.ErrPolicy) {
		t.Errorf("in the same boot: %v, want ErrPolicy", err)
	}
	swtpm.Reset()
	if _, err := unlockToken(t, h, asToken(0, again.Token)); err != nil {
		t.Errorf("in the next boot: %v", err)
	}
}

func TestOSLabel(t *testing.T) {
	t.Parallel()
	h := handlerFor(t, "")
	if err := os.MkdirAll(filepath.Join(h.Paths.Root, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Paths.Root, "etc/os-release"), []byte("ID=x\nPRETTY_NAME=\"Some OS 12\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := h.OSLabel(); !strings.HasPrefix(got, "Some OS 12, ") {
		t.Errorf("%q", got)
	}
}

// TestLabelOfALongName: RHEL's names are too long for a label.
func TestLabelOfALongName(t *testing.T) {
	t.Parallel()
	const kernel = "5.14.0-427.13.1.el9_4.x86_64"
	for _, c := range []struct{ system, kernel, want string }{
		{"Debian GNU/Linux 12 (bookworm)", "6.1.0-28-amd64", "Debian GNU/Linux 12 (bookworm), 6.1.0-28-amd64"},
		{"Red Hat Enterprise Linux 9.4 (Plow), beta", kernel, "Red Hat Enterprise Linux 9.4 (Plow, " + kernel},
		{strings.Repeat("ä", 40), kernel, strings.Repeat("ä", 17) + ", " + kernel},
		{"a\x1b[31mb", "", "a[31mb"}, {"", kernel, kernel}, {"x", strings.Repeat("k", 70), strings.Repeat("k", 64)},
	} {
		got := joinLabel(c.system, c.kernel)
		if err := tokens.CheckLabel(got); got != c.want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, c.want)
		}
	}
}

// TestTokenThatContradictsItselfIsRefused: the policy of the sealed object tells what
// was taken away from the token, where it can be computed.
func TestTokenThatContradictsItselfIsRefused(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for name, pcrs := range map[string]string{"no PCR": "", "PCR 7": "7"} {
		h := handlerFor(t, swtpm.Device())
		h.WithPIN = PINDirect
		if pcrs != "" {
			h.PCRs = mustPCRs(t, pcrs)
		}
		made := enrolled(t, h, "4711").Token
		plain := handlerFor(t, swtpm.Device())
		for what, raw := range map[string]string{
			"as enrolled":               changed(t, made, memberPIN, ""),
			"without the record":        changed(t, json.RawMessage(changed(t, made, memberPIN, "")), tokens.ExtraMember, ""),
			"another key signs instead": changed(t, samples(t)["pub257"], memberPubkeyRef, `"x"`),
		} {
			_, _, err := reseal(t, plain, json.RawMessage(raw), nil)
			if !errors.Is(err, errContradiction) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}
