package pivtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// TestOpenSCSeesAYubiKey lets OpenSC's tools judge the card.
func TestOpenSCSeesAYubiKey(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "pkcs11-tool", "opensc-tool")
	r := NewReader(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCard("123456", 7)
	c.AddKey(KeyManagement, ec, testenv.SelfSigned(t, "disk", ec))
	remove := r.Insert(t, c)
	var out string
	// Not its --wait: a card that is there already is none that comes, and it waits on.
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if out, err = runTool(t, r, "opensc-tool", "--name"); err == nil {
			break
		}
	}
	if !strings.Contains(out, "Personal Identity Verification Card") {
		t.Errorf("opensc-tool says:\n%s", out)
	}
	out, err = runTool(t, r, "pkcs11-tool", "--module", "opensc-pkcs11.so", "--list-slots", "--login", "--pin", "123456", "--list-objects")
	if err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	for _, want := range []string{"serial num         : 8707070707070707", "manufacturer : piv_II", "Private Key Object; EC", "label:      KEY MAN key", "ID:         03"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in what pkcs11-tool says:\n%s", want, out)
		}
	}
	if c.Tries() != maxTries || c.Used() != 0 {
		t.Errorf("%d tries, %d uses", c.Tries(), c.Used())
	}
	remove()
}

// runTool runs a tool of OpenSC, which may hang.
func runTool(t *testing.T, r *Reader, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), r.Env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestRetryCounter talks to the card without a reader.
func TestRetryCounter(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCard("1234", 1)
	c.AddKey(KeyManagement, key, nil)
	pin := func(text string) []byte {
		return append([]byte{0, insVerify, 0, 0x80, 8}, append([]byte(text), bytes.Repeat([]byte{0xff}, 8-len(text))...)...)
	}
	use := append([]byte{0, insGeneralAuthenticate, 7, KeyManagement, 5}, 0x7c, 3, 0x81, 1, 0)
	for _, step := range []struct {
		apdu []byte
		want string
	}{
		{[]byte{0, insVerify, 0, 0x80}, "\x63\xc3"},
		{use, "\x69\x82"},
		{pin("0000"), "\x63\xc2"},
		{pin("1234"), "\x90\x00"},
		{use, "\x6a\x80"}, // a block of the wrong size
		{pin("0000"), "\x63\xc2"},
		{use, "\x69\x82"},
		{pin("0000"), "\x63\xc1"},
		{pin("0000"), "\x63\xc0"},
		{pin("1234"), "\x69\x83"},
		{[]byte{0, 0x01, 0, 0}, "\x6d\x00"},
		{[]byte{0, insVerify}, "\x67\x00"},
		{[]byte{0, insVerify, 0, 0x80, 8, 1}, "\x67\x00"},
	} {
		if got := string(c.transmit(step.apdu)); got != step.want {
			t.Errorf("% x is answered with % x, want % x", step.apdu, got, step.want)
		}
	}
}
