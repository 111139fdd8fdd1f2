package escrow

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

// identity is a new key pair as age-keygen writes it.
func identity(t *testing.T, quantum bool) (file secret.Secret, recipient string) {
	t.Helper()
	var text string
	if quantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		text, recipient = id.String(), id.Recipient().String()
	} else {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		text, recipient = id.String(), id.Recipient().String()
	}
	file = secret.Copy([]byte("# created: today\n" + text + "\n"))
	t.Cleanup(file.Wipe)
	return file, recipient
}

func seal(t *testing.T, key secret.Secret, recipients ...string) *Envelope {
	t.Helper()
	var to Recipients
	for _, r := range recipients {
		if err := to.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	e := &Envelope{UUID: "8a0cc7f4-6f0c-4b5e-9d0e-0c4e0a2f9d11", Host: "ada", Slot: 2, Label: "safe"}
	if err := e.Seal(key, &to, time.Date(2026, 11, 29, 12, 0, 0, 5, time.FixedZone("", 3600))); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEveryRecipientOpensTheEnvelope(t *testing.T) {
	for _, quantum := range []bool{false, true} {
		one, first := identity(t, quantum)
		two, second := identity(t, quantum)
		key := recovery.Generate()
		defer key.Wipe()
		text, err := json.Marshal(seal(t, key, first, second))
		if err != nil || bytes.Contains(text, key.Bytes()) {
			t.Fatalf("%v, or the envelope has the key in clear", err)
		}
		e, err := Read(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if e.Created != "2026-11-29T11:00:00Z" || !slices.Equal(e.Recipients, []string{first, second}) || e.Slot != 2 {
			t.Errorf("read back: %+v", e)
		}
		for _, file := range []secret.Secret{one, two} {
			got, err := e.Open(file)
			if err != nil || !got.Equal(key) {
				t.Errorf("opened: %v", err)
			}
			got.Wipe()
		}
	}
}

// TestVector opens the envelope of docs/formats.md, which age 1.3.2 must go on to
// read.
func TestVector(t *testing.T) {
	f, err := os.Open("testdata/envelope.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	file := secret.Copy([]byte("AGE-SECRET-KEY-1X02EH250M7XKUS6PUJYPRUHLYAZR3VJYQNCFCFHGC9V6TQDSX5SQ6VXS9X\n"))
	defer file.Wipe()
	key, err := e.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	if string(key.Bytes()) != "cukjrktc-nehcrhkg-gucbrgte-jerhrcui-gukftecf-dlinvdgr-vhljnelf-jjbdbfgd" {
		t.Errorf("the vector's key is %q", key.Bytes())
	}
	doc, err := os.ReadFile("../../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(e.Age), "\n") {
		if !bytes.Contains(doc, []byte(line)) {
			t.Errorf("docs/formats.md lacks %s", line)
		}
	}
}

func TestWhatIsNoRecipient(t *testing.T) {
	_, classic := identity(t, false)
	_, quantum := identity(t, true)
	var mixed Recipients
	if err := mixed.Add(classic); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                          "malformed recipient",
		"age1":                      "malformed recipient",
		classic[:len(classic)-1]:    "malformed recipient",
		"ssh-ed25519 AAAA":          "malformed recipient",
		"AGE-SECRET-KEY-1QQQ":       "this is the secret key",
		"age1yubikey1qqqqqqqqqqqqq": "plugins are not supported",
		quantum:                     "incompatible",
	} {
		err := mixed.Add(text)
		if !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if len(mixed.keys) != 1 || len(mixed.names) != 1 {
		t.Errorf("%d recipients after refusals", len(mixed.keys))
	}
}

func TestWhatDoesNotOpen(t *testing.T) {
	file, recipient := identity(t, false)
	other, _ := identity(t, false)
	key := recovery.Generate()
	defer key.Wipe()
	good := seal(t, key, recipient)
	damaged, cut, noKey := *good, *good, seal(t, secret.Copy([]byte("hunter2")), recipient)
	at := len(good.Age) - 60
	damaged.Age = good.Age[:at] + "AAAA" + good.Age[at+4:]
	cut.Age = good.Age[:40]
	for name, c := range map[string]struct {
		e    *Envelope
		file secret.Secret
		want string
	}{
		"other identity": {good, other, "it is for other identities"},
		"no identity":    {good, secret.Copy([]byte("hello\n")), "there are no identities of age in the file"},
		"damaged":        {&damaged, file, "it is damaged"},
		"cut":            {&cut, file, "it is damaged"},
		"not a key":      {noKey, file, "not a recovery key"},
	} {
		got, err := c.e.Open(c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || got.Len() != 0 {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds the text", name)
		}
	}
}

func TestWhatIsNoEnvelope(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "it is not an escrowed",
		"[]":                                     "it is not an escrowed",
		`{"type":"systemd-recovery"}`:            "it is not an escrowed",
		`{"type":"luksmith-escrow","version":2}`: "its version is 2",
		`{"type":"luksmith-escrow","slot":"one"}`: "it is not an escrowed",
		strings.Repeat(" ", maxEnvelope+1):        "more than 262144 bytes",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.json")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	f.Discard()
	f.Discard()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if f, err = Create(path); err != nil {
		t.Fatal(err)
	}
	_, recipient := identity(t, false)
	key := recovery.Generate()
	defer key.Wipe()
	if err := f.Write(seal(t, key, recipient)); err != nil {
		t.Fatal(err)
	}
	f.Discard()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("written: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(bytes.NewReader(text)); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}

// TestNothingOfTheKeyStaysInMemory has the build that is shipped look for the key
// after it was encrypted and decrypted.
func TestNothingOfTheKeyStaysInMemory(t *testing.T) {
	if !testenv.AsShipped(t) {
		return
	}
	file, recipient := identity(t, false)
	key := recovery.Generate()
	text := testenv.Inverted(key.Bytes()[9:26])
	e := seal(t, key, recipient)
	again, err := e.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := testenv.Copies(t, text); n != 2 {
		t.Errorf("%d copies while two are alive", n)
	}
	key.Wipe()
	again.Wipe()
	if n := testenv.Copies(t, text); n != 0 {
		t.Errorf("%d copies are left", n)
	}
}
