package pkcs11

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/testenv"
	"luksmith/luks2"
	"luksmith/tokens/pkcs11/wire"
)

var program = testenv.NewHelper(wire.Program)

func TestMain(m *testing.M) {
	code := m.Run()
	program.Remove()
	os.Exit(code)
}

// connect is Handler.Connect for the freshly built helper with more in its
// environment.
func connect(t testing.TB, env ...string) func(context.Context) (helper.Conn, error) {
	t.Helper()
	path := testenv.WithEnv(t, program.Path(t), env...)
	return func(ctx context.Context) (helper.Conn, error) { return helper.StartPath(ctx, path) }
}

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
	return v
}

// token is the JSON as the header would hold it.
func token(id int, raw string) luks2.Token {
	return luks2.Token{ID: id, Type: Type, Keyslots: []int{1}, Raw: json.RawMessage(raw)}
}
