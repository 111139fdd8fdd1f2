package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

var program = testenv.NewHelper(wire.Program)

func TestMain(m *testing.M) {
	code := m.Run()
	program.Remove()
	faultModule.Remove()
	os.Exit(code)
}

// connect is Handler.Connect for the freshly built helper with more in its
// environment.
func connect(t testing.TB, env ...string) func(context.Context) (helper.Conn, error) {
	t.Helper()
	path := testenv.WithEnv(t, program.Path(t), env...)
	return func(ctx context.Context) (helper.Conn, error) { return helper.StartPath(ctx, path) }
}

// card is a token with one key pair of each kind that the tests of forms need.
var card = testenv.Token{Label: "card", PIN: "123456"}

// fixtureToken is the token of testdata/softhsm, with the keys 01 "rsa" (RSA-2048)
// and 02 "ec" (P-256).
var fixtureToken = testenv.Token{Label: "luksmith", PIN: "1234"}

// fixtureStore is a copy of testdata/softhsm.
func fixtureStore(t testing.TB) *testenv.SoftHSM {
	t.Helper()
	s := testenv.NewSoftHSM(t)
	s.Restore(t, filepath.Join("testdata", "softhsm"))
	return s
}

// volume is a fixture made by systemd, as its JSON describes it.
type volume struct {
	Token      json.RawMessage `json:"token"`
	Passphrase string          `json:"derived_passphrase"`
	Keyslot    int             `json:"keyslot"`
}

// fixtures are the volumes made by systemd, without suffix.
var fixtures = []string{"systemd252-rsa", "systemd257-rsa", "systemd257-ec", "systemd262-rsa-oaep"}

func readVolume(t testing.TB, name string) volume {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var v volume
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer // as it stands in a header
	if err := json.Compact(&compact, v.Token); err != nil {
		t.Fatal(err)
	}
	v.Token = compact.Bytes()
	return v
}

// token is the JSON as the header would hold it.
func token(id int, raw string) luks2.Token {
	return luks2.Token{ID: id, Type: Type, Keyslots: []int{1}, Raw: json.RawMessage(raw)}
}

// secretOf is a text as a Secret for the test.
func secretOf(t testing.TB, text string) secret.Secret {
	t.Helper()
	s := secret.Copy([]byte(text))
	t.Cleanup(s.Wipe)
	return s
}

var p256 = elliptic.P256()

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEC(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// cardWith is a store with the token card and the given keys under the ids 01,
// 02, … and the labels "key 1", ….
func cardWith(t testing.TB, keys ...crypto.Signer) *testenv.SoftHSM {
	t.Helper()
	s := testenv.NewSoftHSM(t)
	s.AddToken(t, card)
	for i, key := range keys {
		n := string(rune('1' + i))
		s.AddKey(t, card, testenv.Key{ID: "0" + n, Label: "key " + n, Private: key})
	}
	return s
}

// enrol enrols for the given systemd, with the PIN typed once.
func enroll(t testing.TB, h *Handler, compat int, pin string) *tokens.Enrollment {
	t.Helper()
	ui := tokentest.NewUI(t, tokentest.Typed(pin)...)
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: compat}, ui)
	if err != nil {
		t.Fatalf("Enroll: %v", err)
	}
	t.Cleanup(e.Passphrase.Wipe)
	return e
}

// unlock unlocks one token without a volume.
func unlock(t testing.TB, h *Handler, raw string, answers ...string) (secret.Secret, error) {
	t.Helper()
	ui := tokentest.NewUI(t, tokentest.Typed(answers...)...)
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, raw)}}, ui)
	if err != nil {
		return secret.Secret{}, err
	}
	t.Cleanup(got.Passphrase.Wipe)
	return got.Passphrase, nil
}

// opens is UnlockRequest.Opens for a volume that a passphrase opens.
func opens(want secret.Secret) func(context.Context, luks2.Token, secret.Secret) error {
	return func(_ context.Context, _ luks2.Token, got secret.Secret) error {
		if got.Equal(want) {
			return nil
		}
		return tokens.ErrWrongKey
	}
}
