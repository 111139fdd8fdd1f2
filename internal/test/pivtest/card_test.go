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
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := runTool(t, r, name, args...)
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return out
	}
	if out := run("opensc-tool", "--wait", "--name"); !strings.Contains(out, "Personal Identity Verification Card") {
		t.Errorf("opensc-tool says:\n%s", out)
	}
	out := run("pkcs11-tool", "--module", "opensc-pkcs11.so", "--list-slots", "--login", "--pin", "123456", "--list-objects")
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

// runTool runs a tool of OpenSC, and once more if it waits for ever: that of Debian 12 was
// seen to do so when the card came while it asked pcscd for readers.
func runTool(t *testing.T, r *Reader, name string, args ...string) (out string, err error) {
	t.Helper()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), r.Env...)
		b, failed := cmd.CombinedOutput()
		over := ctx.Err()
		cancel()
		if out, err = string(b), failed; over == nil {
			break
		}
	}
	return out, err
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
