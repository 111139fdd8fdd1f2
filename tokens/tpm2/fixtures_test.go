package tpm2

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// fixture is a volume that real systemd enrolled: what testdata/README says.
type fixture struct {
	name           string
	Description    string
	Command        string
	PIN            string
	Token          json.RawMessage
	Passphrase     string `json:"derived_passphrase"`
	VolumeKey      string `json:"volume_key_hex"`
	SignatureFile  string `json:"signature_file"`
	PCRLockFile    string `json:"pcrlock_file"`
	UUID           string
	SystemdVersion string `json:"systemd"`
}

func fixtures(t testing.TB) []fixture {
	t.Helper()
	files, err := filepath.Glob("testdata/systemd/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	var list []fixture
	for _, file := range files {
		f := fixture{name: strings.TrimSuffix(filepath.Base(file), ".json")}
		if err := json.Unmarshal(readTestFile(t, file), &f); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		list = append(list, f)
	}
	return list
}

func fixtureNamed(t testing.TB, name string) fixture {
	t.Helper()
	for _, f := range fixtures(t) {
		if f.name == name {
			return f
		}
	}
	t.Fatalf("no fixture %s", name)
	return fixture{}
}

func readTestFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// samples are tokens of systemd 252, 257 and 262 without their TPM.
func samples(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	files, err := filepath.Glob("testdata/samples/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	m := map[string]json.RawMessage{}
	for _, file := range files {
		m[strings.TrimSuffix(filepath.Base(file), ".json")] = readTestFile(t, file)
	}
	return m
}

// asToken is what the header would hold.
func asToken(id int, raw json.RawMessage) luks2.Token {
	return luks2.Token{ID: id, Type: tokenType, Keyslots: []int{1}, Raw: raw}
}

// fixtureTPM is the TPM of the fixtures: PCRs zero, an SRK, the NV index of the
// pcrlock policy.
func fixtureTPM(t testing.TB) *testenv.TPM {
	t.Helper()
	return testenv.StartTPM(t, testenv.TPMOptions{State: "testdata"})
}

// handlerFor is a handler on a TPM of a machine that has nothing else, where all
// PCRs may be bound as they are.
func handlerFor(t testing.TB, device string) *Handler {
	t.Helper()
	return &Handler{Device: device, PCRsAsTheyAre: true, Paths: Paths{Root: t.TempDir()}}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changed replaces a member of a token; an empty value removes it.
func changed(t testing.TB, raw json.RawMessage, member, value string) string {
	t.Helper()
	m, err := tokens.Members(raw)
	if err != nil {
		t.Fatal(err)
	}
	m[member] = json.RawMessage(value)
	if value == "" {
		delete(m, member)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// secretOf is a random secret for the time of the test.
func secretOf(t testing.TB, n int) secret.Secret {
	t.Helper()
	s := secret.Random(n)
	t.Cleanup(s.Wipe)
	return s
}

func secretText(t testing.TB, text string) secret.Secret {
	t.Helper()
	s := secret.Copy([]byte(text))
	t.Cleanup(s.Wipe)
	return s
}
