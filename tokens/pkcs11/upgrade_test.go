package pkcs11

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// upgradeAll upgrades tokens of volumes that the passphrases, by token number, open.
func upgradeAll(t *testing.T, h *Handler, compat int, passphrases map[int]string, list []luks2.Token, pins ...string) ([]Upgraded, error) {
	t.Helper()
	return h.Upgrade(t.Context(), &UpgradeRequest{Tokens: list, Compat: compat,
		Opens: func(_ context.Context, tok luks2.Token, got secret.Secret) error {
			if string(got.Bytes()) == passphrases[tok.ID] {
				return nil
			}
			return tokens.ErrWrongKey
		}}, tokentest.NewUI(t, tokentest.Typed(pins...)...))
}

func TestUpgradeToOAEP(t *testing.T) {
	t.Parallel()
	store := fixtureStore(t)
	v := readVolume(t, "systemd257-rsa")
	odd, err := setMembers(v.Token, []member{{memberURI, "pkcs11:object=rsa;type=cert;token=luksmith?pin-value=1"}, {"other", []int{1}}, {"luksmith", map[string]string{"label": "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	list := []luks2.Token{token(0, string(v.Token)), token(1, string(readVolume(t, "systemd257-ec").Token)),
		token(2, string(readVolume(t, "systemd262-rsa-oaep").Token)), token(3, string(odd))}
	h, log := spied(t, store)
	got, err := upgradeAll(t, h, 262, map[int]string{0: v.Passphrase, 3: v.Passphrase}, list, fixtureToken.PIN)
	if err != nil || len(got) != 2 || got[0].ID != 0 || got[1].ID != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	if n := count(t, log, "C_Login"); n != 2 {
		t.Errorf("%d logins, want one for the old forms and one for the new", n)
	}
	if got[0].Note != "" || !slices.Equal(got[0].Changes, []string{"padding"}) || !slices.Equal(got[1].Changes, []string{"padding", "uri"}) {
		t.Errorf("changes %q and %q", got[0].Changes, got[1].Changes)
	}
	for i, u := range got {
		r, err := parse(u.Token)
		if err != nil || r.padding != wire.OAEPSHA1 || !strings.Contains(string(u.Token), `"keyslots":["1"]`) {
			t.Errorf("%s: %v", u.Token, err)
		}
		want := []string{"pkcs11:token=luksmith;id=%01;object=rsa", "pkcs11:token=luksmith;object=rsa;type=private"}[i]
		if r.text != want {
			t.Errorf("URI %s, want %s", r.text, want)
		}
		passphrase, err := unlock(t, &Handler{Connect: connect(t, store.Env...)}, string(u.Token), fixtureToken.PIN)
		if err != nil || string(passphrase.Bytes()) != v.Passphrase {
			t.Errorf("the new form gives another passphrase: %v", err)
		}
	}
	if s := string(got[1].Token); !strings.Contains(s, `"other":[1],"luksmith":{"label":"x"}`) {
		t.Errorf("members were lost: %s", s)
	}
	again, err := upgradeAll(t, &Handler{}, 262, nil, []luks2.Token{token(0, string(got[0].Token))})
	if again != nil || err != nil {
		t.Errorf("a second upgrade: %v, %v", again, err)
	}
}

func TestUpgradeForAnOldSystemd(t *testing.T) {
	t.Parallel()
	store := fixtureStore(t)
	v := readVolume(t, "systemd257-rsa")
	plain := []luks2.Token{token(0, string(v.Token))}
	if _, err := upgradeAll(t, &Handler{}, 260, nil, plain); !errors.Is(err, tokens.ErrUsage) {
		t.Errorf("nothing that systemd 260 could read: %v", err)
	}
	cert := []luks2.Token{token(0, withURI(t, "systemd257-rsa", "pkcs11:token=luksmith;object=rsa;type=cert"))}
	got, err := upgradeAll(t, &Handler{Connect: connect(t, store.Env...)}, 252, map[int]string{0: v.Passphrase}, cert, fixtureToken.PIN)
	if err != nil || len(got) != 1 || !slices.Equal(got[0].Changes, []string{"uri"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	before, _ := parse(cert[0].Raw)
	after, err := parse(got[0].Token)
	if err != nil || after.text != "pkcs11:token=luksmith;object=rsa;type=private" || string(before.key) != string(after.key) {
		t.Errorf("%s, %v", got[0].Token, err)
	}
}

// TestUpgradedURIOpensInSystemd: the token is dead for systemd before.
func TestUpgradedURIOpensInSystemd(t *testing.T) {
	t.Parallel()
	store := fixtureStore(t)
	h := here(t, store)
	image := h.volume(t)
	h.must(t, "", []string{"PASSWORD=" + luks2test.Passphrase, "PIN=" + fixtureToken.PIN}, image, "systemd-cryptenroll",
		"--pkcs11-token-uri=pkcs11:token=luksmith;object=rsa;type=cert")
	open := []string{"open", "--test-passphrase", "--token-only", "--token-id", "0"}
	if out, err := h.run(t, fixtureToken.PIN, nil, image, "cryptsetup", open...); err == nil {
		t.Fatalf("systemd opens type=cert: is this test still of use?\n%s", out)
	}
	list := tokensOf(t, image)
	got, err := (&Handler{Connect: connect(t, store.Env...)}).Upgrade(t.Context(), &UpgradeRequest{Tokens: list, Compat: 252,
		Opens: func(context.Context, luks2.Token, secret.Secret) error { return nil }}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	device, err := luks2.Open(image, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	err = device.Update(t.Context(), func(tx *luks2.Tx) error {
		return tx.ReplaceToken(got[0].ID, luks2.Token{Keyslots: list[0].Keyslots, Raw: got[0].Token})
	})
	if err != nil {
		t.Fatal(err)
	}
	h.must(t, fixtureToken.PIN, nil, image, "cryptsetup", open...)
}

func TestUpgradeOfATokenWithoutOAEP(t *testing.T) {
	t.Parallel()
	h := faulty(t, fixtureStore(t), "no-oaep")
	v := readVolume(t, "systemd257-rsa")
	cert := withURI(t, "systemd257-rsa", "pkcs11:token=luksmith;object=rsa;type=cert")
	list := []luks2.Token{token(0, string(v.Token)), token(1, cert)}
	got, err := upgradeAll(t, h, 262, map[int]string{0: v.Passphrase, 1: v.Passphrase}, list, fixtureToken.PIN)
	failed, ok := errors.AsType[*tokens.TokenError](err)
	if !ok || failed.ID != 0 || !strings.Contains(err.Error(), "CKR_MECHANISM_INVALID") {
		t.Errorf("token 0: %v", err)
	}
	if len(got) != 1 || got[0].ID != 1 || !slices.Equal(got[0].Changes, []string{"uri"}) || !strings.Contains(got[0].Note, "no OAEP") {
		t.Errorf("token 1: %+v", got)
	}
}

// TestUpgradeFailuresLeaveTheOthers: one is malformed, one opens nothing, one is
// for a card that is not there.
func TestUpgradeFailuresLeaveTheOthers(t *testing.T) {
	t.Parallel()
	v := readVolume(t, "systemd257-rsa")
	list := []luks2.Token{token(0, `{"type":"systemd-pkcs11"}`), token(1, string(v.Token)),
		token(2, withURI(t, "systemd257-rsa", "pkcs11:token=lost;type=cert")), token(3, string(v.Token))}
	got, err := upgradeAll(t, &Handler{Connect: connect(t, fixtureStore(t).Env...)}, 262, map[int]string{3: v.Passphrase}, list, fixtureToken.PIN)
	if len(got) != 1 || got[0].ID != 3 {
		t.Errorf("%+v", got)
	}
	for _, want := range []error{tokens.ErrMalformed, tokens.ErrWrongKey, tokens.ErrNoDevice} {
		if !errors.Is(err, want) {
			t.Errorf("%v is missing in: %v", want, err)
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 3 {
		t.Errorf("%d lines: %v", n, err)
	}
	if !json.Valid(got[0].Token) {
		t.Errorf("%s", got[0].Token)
	}
}
