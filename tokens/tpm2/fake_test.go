package tpm2

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// oldPINToken is a token for systemd 253: with a PIN, without a storage key.
func oldPINToken(t *testing.T) (luks2.Token, *Handler) {
	t.Helper()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.WithPIN = PINDirect
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 253}, tokentest.NewUI(t, tokentest.Typed("4711")...))
	if err != nil {
		t.Fatal(err)
	}
	e.Passphrase.Wipe()
	name := ""
	for _, option := range e.Crypttab {
		if rest, ok := strings.CutPrefix(option, "luksmith-tpm2-srk="); ok {
			name = rest
		}
	}
	if name == "" {
		t.Fatalf("the line for crypttab does not name the storage key: %q", e.Crypttab)
	}
	opened := handlerFor(t, swtpm.Device())
	if err := setNames(&opened.StorageKeys)(name); err != nil {
		t.Fatal(err)
	}
	return asToken(0, e.Token), opened
}

// TestFakeTPMCanGuessAPIN is the control run: what docs/security.md says of tokens
// without a storage key is true.
func TestFakeTPMCanGuessAPIN(t *testing.T) {
	t.Parallel()
	tok, _ := oldPINToken(t)
	fake := startFakeTPM(t)
	ui := tokentest.NewUI(t, tokentest.Answer{Text: "4711"}, tokentest.Answer{Err: tokens.ErrNoPrompt})
	_, err := handlerFor(t, fake.device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, ui)
	if !errors.Is(err, tokens.ErrWrongPIN) || len(fake.unseals) != 1 {
		t.Fatalf("%v, %d unseals", err, len(fake.unseals))
	}
	parsed := tokenOf(t, tok.Raw)
	for pin, want := range map[string]bool{"0815": false, "4711": true} {
		keys, err := derivePIN(t.Context(), secretText(t, pin), parsed.salt, parsed.argon)
		if err != nil {
			t.Fatal(err)
		}
		if got := fake.unseals[0].guess(parsed.blobs[0].Public, keys.auth); got != want {
			t.Errorf("the guess %s is right: %t", pin, got)
		}
		keys.wipe()
	}
}

// TestNoPINForAFakeTPM: the name of the storage key stands outside the header, so a
// chip that has another one sees no PIN, and nobody is asked for it.
func TestNoPINForAFakeTPM(t *testing.T) {
	t.Parallel()
	tok, h := oldPINToken(t)
	if got, err := unlockToken(t, h, tok, "4711"); err != nil {
		t.Fatalf("the right TPM: %v", err)
	} else {
		got.Passphrase.Wipe()
	}
	fake := startFakeTPM(t)
	h.Device = fake.device()
	if _, err := unlockToken(t, h, tok); !errors.Is(err, tokens.ErrOtherDevice) || !strings.Contains(err.Error(), "luksmith-tpm2-srk") || len(fake.unseals) != 0 {
		t.Errorf("%v, %d unseals", err, len(fake.unseals))
	}
	// Nor does it help to put one's own key into the header.
	p, err := chip.NewParent(chip.HandleSRK, fake.public)
	if err != nil {
		t.Fatal(err)
	}
	parsed := tokenOf(t, tok.Raw)
	parsed.Parent = p
	raw, err := marshalToken(parsed.members(newestSystemd))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unlockToken(t, h, asToken(0, raw)); !errors.Is(err, tokens.ErrOtherDevice) || len(fake.unseals) != 0 {
		t.Errorf("with its key in the header: %v, %d unseals", err, len(fake.unseals))
	}
}

// TestCreatedObjectIsCompared: a TPM may answer with another object than it was
// asked for, correctly authenticated.
func TestCreatedObjectIsCompared(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"another policy":     func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer[0] ^= 1 },
		"usable by password": func(p *tpm2.TPMTPublic) { p.ObjectAttributes.UserWithAuth = true },
		"as asked for":       func(*tpm2.TPMTPublic) {},
	} {
		fake := startFakeTPM(t)
		fake.create = change
		c, err := chip.Open(t.Context(), fake.device(), "")
		if err != nil {
			t.Fatal(err)
		}
		p, err := chip.NewParent(chip.HandleSRK, fake.public)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Seal(p, chip.Object{Policy: chip.Digest{7}, Data: secretText(t, "0123456789abcdef0123456789abcdef")})
		if asked := name == "as asked for"; (err == nil) != asked || !asked && !strings.Contains(err.Error(), "another object than it was asked for") {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

// TestProofComparesTheKey: what comes back has to be what was sealed.
func TestProofComparesTheKey(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	made := enrolled(t, h)
	c, err := h.connect(t.Context(), swtpm.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := h.newEnrollment(&settings{req: having(), compat: newestSystemd}, c, nil)
	if err := e.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := e.prove(made.Token, secret.Secret{}, made.Passphrase); err != nil {
		t.Errorf("the right key: %v", err)
	}
	if err := e.prove(made.Token, secret.Secret{}, secretOf(t, made.Passphrase.Len())); err == nil || !strings.Contains(err.Error(), "another key back") {
		t.Errorf("another key: %v", err)
	}
}

// TestKnownPINIsTriedOnce: a PIN that is used without a question is not tried again
// when it was wrong.
func TestKnownPINIsTriedOnce(t *testing.T) {
	t.Parallel()
	swtpm, tok := pinToken(t)
	before := lockoutOf(t, swtpm)
	h := handlerFor(t, swtpm.Device())
	c, err := h.connect(t.Context(), swtpm.Device())
	if err != nil {
		t.Fatal(err)
	}
	o := &opener{h: h, c: c, knownPIN: secretText(t, "wrong")}
	_, err = o.open(tokenOf(t, tok.Raw))
	c.Close()
	if !errors.Is(err, tokens.ErrWrongPIN) {
		t.Error(err)
	}
	checkTries(t, swtpm, before, 1)
}

// TestStorageKeysOfTokensThatStayAreNamed: the line of a volume with two tokens with PIN,
// one of them made for an old systemd, names both storage keys, or one of the PINs would
// not be asked for at boot any more. They are read from the TPM, not from the header.
func TestStorageKeysOfTokensThatStayAreNamed(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	list := []luks2.Token{}
	var line string
	for id, compat := range []int{253, newestSystemd, 253} {
		h := handlerFor(t, swtpm.Device())
		h.WithPIN, h.PCRs = PINDirect, mustPCRs(t, strconv.Itoa(id))
		e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: compat, Volume: tokens.Volume{Tokens: list}}, tokentest.NewUI(t, tokentest.Typed("4711")...))
		if err != nil {
			t.Fatal(err)
		}
		e.Passphrase.Wipe()
		list, line = append(list, asToken(id, e.Token)), strings.Join(e.Crypttab, ",")
		if id > 0 { // somebody edits the header
			p, err := chip.NewParent(chip.HandleSRK, startFakeTPM(t).public)
			if err != nil {
				t.Fatal(err)
			}
			forged := tokenOf(t, e.Token)
			forged.Parent = p
			raw, err := marshalToken(forged.members(newestSystemd))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, asToken(10+id, raw))
		}
	}
	_, value, _ := strings.Cut(line, "luksmith-tpm2-srk=")
	named := handlerFor(t, swtpm.Device())
	if err := setNames(&named.StorageKeys)(value); err != nil || len(named.StorageKeys) != 2 {
		t.Fatalf("%q: %v", line, err)
	}
	for _, id := range []int{0, 1} {
		got, err := unlockToken(t, named, list[id], "4711")
		if err != nil {
			t.Errorf("token %d: %v", id, err)
			continue
		}
		got.Passphrase.Wipe()
	}
}

// TestNoPINForAFakeTPMWhenResealing: after a boot that asked for no PIN, whoever re-seals
// or changes it would type it for the fake TPM instead. On the right one a new key may
// hang on another storage key than the old one.
func TestNoPINForAFakeTPMWhenResealing(t *testing.T) {
	t.Parallel()
	tok, right := oldPINToken(t)
	named := right.StorageKeys
	for _, device := range []string{startFakeTPM(t).device(), right.Device} {
		h := handlerFor(t, device)
		h.RememberedKeys = func(tokens.Volume) [][]byte { return named }
		var answers, twice []string
		if device == right.Device {
			answers, twice = []string{"4711"}, []string{"4711", "4711"}
		}
		volume := tokens.Volume{Tokens: []luks2.Token{tok}}
		changed, changeErr := h.ChangePIN(t.Context(), &ChangePINRequest{Volume: volume, Token: tok, Compat: newestSystemd, Authentic: true}, tokentest.NewUI(t, tokentest.Typed(twice...)...))
		resealed, resealErr := h.Reseal(t.Context(), &ResealRequest{Volume: volume, Token: tok, Compat: newestSystemd, Authentic: true}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
		switch {
		case device == right.Device:
			if changeErr != nil || resealErr != nil {
				t.Errorf("on the right TPM: %v, %v", changeErr, resealErr)
			}
		case !errors.Is(changeErr, tokens.ErrOtherDevice) || !strings.Contains(changeErr.Error(), "luksmith-tpm2-srk") || resealErr == nil: // which wants more than this one can
			t.Errorf("on the fake one: %v, %v", changeErr, resealErr)
		}
		for _, e := range []*tokens.Enrollment{changed, resealed} {
			if e != nil {
				e.Passphrase.Wipe()
			}
		}
	}
}
