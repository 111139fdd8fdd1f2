package tpm2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// lockoutOf reads the lockout counter over a connection of its own.
func lockoutOf(t testing.TB, swtpm *testenv.TPM) *chip.Lockout {
	t.Helper()
	c, err := new(Handler).connect(t.Context(), swtpm.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Lockout()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// checkTries wants the lockout counter at so many more wrong tries than before.
func checkTries(t testing.TB, swtpm *testenv.TPM, before *chip.Lockout, more uint32) {
	t.Helper()
	if after := lockoutOf(t, swtpm); after.Counter != before.Counter+more {
		t.Errorf("the lockout counter went from %d to %d, want +%d", before.Counter, after.Counter, more)
	}
}

func TestWrongPINCostsOneTry(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	f := fixtureNamed(t, "systemd257-tpm2-pin")
	before := lockoutOf(t, swtpm)
	ui := tokentest.NewUI(t, tokentest.Typed("wrong", f.PIN)...)
	got, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{asToken(0, f.Token)}}, ui)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Passphrase.Wipe()
	checkTries(t, swtpm, before, 1)
	prompts := ui.Prompts()
	if len(prompts) != 2 || prompts[0].Attempt != 0 || prompts[1].Attempt != 1 || prompts[0].Credential != "tpm2-pin" {
		t.Errorf("prompts %+v", prompts)
	}
	if left, err := prompts[1].Tries(t.Context()); err == nil {
		t.Errorf("Tries answers %d after the connection was closed", left)
	}
}

// pinToken enrols a token with the PIN 4711 on a TPM that locks after three wrong
// PINs.
func pinToken(t *testing.T) (*testenv.TPM, luks2.Token) {
	t.Helper()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.WithPIN = PINDirect
	return swtpm, asToken(0, enrolled(t, h, "4711").Token)
}

func TestTriesLeftAreToldBeforeThePIN(t *testing.T) {
	t.Parallel()
	swtpm, tok := pinToken(t)
	var left []int
	look := func(p tokens.Prompt) {
		n, err := p.Tries(t.Context())
		if err != nil {
			t.Error(err)
		}
		left = append(left, n)
	}
	ui := tokentest.NewUI(t, tokentest.Answer{Text: "wrong", Before: look}, tokentest.Answer{Text: "4711", Before: look})
	got, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, ui)
	if err != nil {
		t.Fatal(err)
	}
	got.Passphrase.Wipe()
	if fmt.Sprint(left) != "[3 2]" {
		t.Errorf("tries left %v, want [3 2]", left)
	}
}

// TestWrongCredentialCostsOneTryForAllTokens: $PIN must not be spent on every
// token of the header.
func TestWrongCredentialCostsOneTryForAllTokens(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	list := []luks2.Token{asToken(0, fixtureNamed(t, "systemd257-tpm2-pin").Token), asToken(1, fixtureNamed(t, "systemd262-tpm2-pin-direct").Token)}
	before := lockoutOf(t, swtpm)
	ui := tokentest.NewUI(t, tokentest.Answer{Text: "wrong"}, tokentest.Answer{Err: tokens.ErrNoPrompt}, tokentest.Answer{Err: tokens.ErrNoPrompt})
	_, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: list}, ui)
	if !errors.Is(err, tokens.ErrWrongPIN) {
		t.Errorf("%v, want ErrWrongPIN", err)
	}
	checkTries(t, swtpm, before, 1)
	for i, p := range ui.Prompts() {
		if (p.Attempt == 0) != (i == 0) {
			t.Errorf("question %d has attempt %d: credentials would be tried again", i, p.Attempt)
		}
	}
}

func TestRightPINCostsNothing(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	for _, name := range []string{"systemd262-tpm2-pin-argon2id", "systemd257-tpm2-pin-zero", "systemd252-tpm2-pin"} {
		f := fixtureNamed(t, name)
		before := lockoutOf(t, swtpm)
		if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, f.Token), f.PIN); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkTries(t, swtpm, before, 0)
	}
}

// TestUnknownMemberWithPINIsNotTried: a newer systemd may stretch the PIN
// otherwise, and then the right PIN would be a wrong one.
func TestUnknownMemberWithPINIsNotTried(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	before := lockoutOf(t, swtpm)
	text := changed(t, fixtureNamed(t, "systemd257-tpm2-pin").Token, "tpm2_future", "1")
	_, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, json.RawMessage(text)))
	if !errors.Is(err, tokens.ErrUnsupported) || !strings.Contains(err.Error(), "tpm2_future") {
		t.Errorf("%v, want ErrUnsupported with the member's name", err)
	}
	checkTries(t, swtpm, before, 0)
}

// TestCheapTokensComeFirst: the PIN is not asked for when a token without one
// opens.
func TestCheapTokensComeFirst(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	list := []luks2.Token{
		asToken(0, fixtureNamed(t, "systemd257-tpm2-pin").Token), asToken(1, fixtureNamed(t, "systemd252-tpm2-pcr").Token),
		asToken(2, fixtureNamed(t, "systemd257-tpm2-pcr").Token),
	}
	var tried []int
	req := &tokens.UnlockRequest{Tokens: list, Opens: func(_ context.Context, tok luks2.Token, _ secret.Secret) error {
		tried = append(tried, tok.ID)
		if tok.ID == 0 {
			return nil
		}
		return tokens.ErrWrongKey
	}}
	got, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), req, tokentest.NewUI(t, tokentest.Typed("4711")...))
	if err != nil {
		t.Fatal(err)
	}
	got.Passphrase.Wipe()
	if fmt.Sprint(tried) != "[2 1 0]" || got.Token.ID != 0 {
		t.Errorf("tried %v, token %d opened", tried, got.Token.ID)
	}
}

func TestLockoutIsToldApartFromAWrongPIN(t *testing.T) {
	t.Parallel()
	swtpm, tok := pinToken(t)
	open := enrolled(t, handlerFor(t, swtpm.Device()))
	old, err := tryEnroll(t, handlerFor(t, swtpm.Device()), &tokens.EnrollRequest{Compat: 252})
	if err != nil {
		t.Fatal(err)
	}
	oldToken := asToken(2, old.Token)
	_, err = unlockToken(t, handlerFor(t, swtpm.Device()), tok, "a", "b", "c", "d")
	if !errors.Is(err, tokens.ErrLocked) || !strings.Contains(err.Error(), "3 of 3 tries used up by wrong PINs or power cuts") || strings.Count(err.Error(), "locked") != 1 || !strings.Contains(err.Error(), "16 min 40 s") {
		t.Errorf("%v, want ErrLocked with the counter and when it heals", err)
	}
	// The next run tells before it asks.
	look := func(p tokens.Prompt) {
		if _, err := p.Tries(t.Context()); !errors.Is(err, tokens.ErrLocked) {
			t.Errorf("Tries: %v, want ErrLocked", err)
		}
	}
	ui := tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrLocked, Before: look})
	_, err = handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, ui)
	if !errors.Is(err, tokens.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	// Of several tokens with a PIN only the first is asked for.
	ui = tokentest.NewUI(t, tokentest.Answer{Err: tokens.ErrLocked})
	second := tok
	second.ID = 1
	if _, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok, second}}, ui); !errors.Is(err, tokens.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	// What is said of the lock is said once, also for a key without a PIN that was made
	// for an old systemd.
	if _, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{oldToken, tok, second}}, tokentest.NewUI(t)); strings.Count(err.Error(), "locked") != 1 {
		t.Errorf("three tokens: %v", err)
	}
	// Without a PIN nothing is locked: the objects have noDA.
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(1, open.Token)); err != nil {
		t.Errorf("a token without PIN is locked too: %v", err)
	}
}

// TestRetryAfterPowerLoss: the first use of an object with a PIN after the TPM
// lost power gives TPM_RC_RETRY.
func TestRetryAfterPowerLoss(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	f := fixtureNamed(t, "systemd257-tpm2-pin")
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, f.Token), "wrong", f.PIN); err != nil {
		t.Fatal(err)
	}
	swtpm.Kill()
	swtpm.Start()
	swtpm.Mark()
	before := lockoutOf(t, swtpm)
	if _, err := unlockToken(t, handlerFor(t, swtpm.Device()), asToken(0, f.Token), f.PIN); err != nil {
		t.Fatal(err)
	}
	checkTries(t, swtpm, before, 0)
	var unseals [][]byte
	for _, c := range swtpm.Commands() {
		if c.Code == 0x15e {
			unseals = append(unseals, c.Command)
		}
	}
	if len(unseals) != 2 || !bytes.Equal(unseals[0], unseals[1]) {
		t.Errorf("%d Unseal commands, want the same one twice", len(unseals))
	}
}

// TestRandomPINs enrols and opens 64 PINs: one auth value in eight has a zero
// byte, which go-tpm's sessions cut it at.
func TestRandomPINs(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	rng := rand.New(rand.NewPCG(3, 64))
	zeros := 0
	for i := range 64 {
		pin := fmt.Sprintf("%06d", rng.IntN(1000000))
		h := handlerFor(t, swtpm.Device())
		h.WithPIN = PINDirect
		e := enrolled(t, h, pin) // proves it already
		got, err := unlockToken(t, h, asToken(i, e.Token), pin)
		if err != nil {
			t.Fatalf("PIN %s: %v", pin, err)
		}
		if !got.Passphrase.Equal(e.Passphrase) {
			t.Errorf("PIN %s: another passphrase", pin)
		}
		tok, err := parseToken(e.Token)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := derivePIN(t.Context(), secret.Copy([]byte(pin)), tok.salt, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(keys.auth.Bytes(), 0) >= 0 || keys.auth.Len() < sha256.Size {
			zeros++
		}
		keys.wipe()
	}
	t.Logf("%d of 64 auth values had a zero byte", zeros)
	if l := lockoutOf(t, swtpm); l.Counter != 0 {
		t.Errorf("%d right PINs were refused", l.Counter)
	}
}

// TestAuthValueTrimsTrailingZerosOnly looks for a PIN of either kind.
func TestAuthValueTrimsTrailingZerosOnly(t *testing.T) {
	t.Parallel()
	var inside, trailing bool
	for i := 0; !inside || !trailing; i++ {
		pin := []byte(fmt.Sprint(i))
		sum := sha256.Sum256(pin)
		auth := chip.AuthValue(pin)
		want := bytes.TrimRight(sum[:], "\x00")
		if !bytes.Equal(auth.Bytes(), want) {
			t.Fatalf("PIN %s: auth value %x of %x", pin, auth.Bytes(), sum)
		}
		trailing = trailing || len(want) < len(sum)
		inside = inside || bytes.IndexByte(want, 0) >= 0
		auth.Wipe()
	}
}

func TestArgonCost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cost       Argon2idCost
		well, able bool
	}{
		{Argon2idCost{64 << 20, 8, 4}, true, true},
		{Argon2idCost{337558726, 2, 2}, true, true},
		{Argon2idCost{8 << 10, 1, 1}, true, true},
		{Argon2idCost{8<<10 - 1, 1, 1}, false, true},
		{Argon2idCost{64 << 10, 1, 9}, false, true},
		{Argon2idCost{1 << 50, 1, 1}, false, false},
		{Argon2idCost{1 << 41, 1, 1}, true, false},          // more than any machine has
		{Argon2idCost{64 << 20, 1<<32 - 1, 4}, true, false}, // would take years
		{Argon2idCost{1 << 30, 1 << 20, 4}, true, false},
		{Argon2idCost{64 << 20, 1, 256}, true, false},
	} {
		if err := c.cost.check(); (err == nil) != c.well {
			t.Errorf("%+v: check says %v", c.cost, err)
		}
		if err := c.cost.affordable(); (err == nil) != c.able || err != nil && !errors.Is(err, tokens.ErrUnsupported) {
			t.Errorf("%+v: affordable says %v", c.cost, err)
		}
	}
}

func TestBenchmarkReachesTheTime(t *testing.T) {
	t.Parallel()
	c := Argon2idCost{defaultArgonMemory, 1, 1}
	if err := c.benchmark(t.Context(), Argon2idCost{Iterations: 1}, 1); err != nil { // a nanosecond
		t.Fatal(err)
	}
	if c.Memory != 8<<20 || c.Iterations != 1 {
		t.Errorf("a nanosecond gives %+v, want the least cost", c)
	}
	c = Argon2idCost{8 << 20, 1, 1}
	if err := c.benchmark(t.Context(), Argon2idCost{Memory: 8 << 20}, 1e9); err != nil {
		t.Fatal(err)
	}
	if c.Memory != 8<<20 || c.Iterations < 2 {
		t.Errorf("a second gives %+v, want more iterations over the given memory", c)
	}
}

// TestPINsThatThisMachineCannotStretchCostNothing: a header may hold one for every keyslot.
// Nobody is asked for one, none is sent to the TPM, and the token beside them opens.
func TestPINsThatThisMachineCannotStretchCostNothing(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	f, good := fixtureNamed(t, "systemd262-tpm2-pin-argon2id"), fixtureNamed(t, "systemd257-tpm2-pin")
	var list []luks2.Token
	for i := range 30 {
		costly := changed(t, f.Token, memberMemcost, "1099511627776")
		if i%2 > 0 {
			costly = changed(t, f.Token, memberIterations, "4294967295")
		}
		list = append(list, luks2.Token{ID: i, Type: tokenType, Keyslots: []int{i}, Raw: json.RawMessage(costly)})
	}
	before := lockoutOf(t, swtpm)
	ui := tokentest.NewUI(t, tokentest.Typed(good.PIN)...) // one answer: a second question fails the test
	swtpm.Mark()
	got, err := handlerFor(t, swtpm.Device()).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: append(list, asToken(31, good.Token))}, ui)
	if err != nil {
		t.Fatal(err)
	}
	got.Passphrase.Wipe()
	checkCount(t, swtpm, 8) // those of a token that is alone, and one that reads the PCRs for all
	checkTries(t, swtpm, before, 0)
}
