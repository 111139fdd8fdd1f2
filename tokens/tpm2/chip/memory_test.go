package chip

import (
	"fmt"
	"runtime"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// TestNoSessionKeyStaysInMemory searches the whole address space after sessions that
// knew a session key and an auth value.
func TestNoSessionKeyStaysInMemory(t *testing.T) {
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	c, err := Open(t.Context(), swtpm.Device(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.MakeSRK()
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string][]byte{}
	func() {
		auth, data := secret.Random(32), secret.Random(32)
		defer auth.Wipe()
		defer data.Wipe()
		blob, err := c.Seal(p, Object{Auth: auth, Data: data, Policy: pinPolicy()})
		if err != nil {
			t.Fatal(err)
		}
		object, err := c.Load(p, blob.Private, blob.Public)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.StartPolicy(p)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(c)
		for name, text := range map[string]secret.Secret{"session key": s.key, "auth value": auth, "sealed data": data} {
			texts[name] = testenv.Inverted(text.Bytes())
			for _, pad := range []byte{0x36, 0x5c} { // of an HMAC
				padded := text.Clone()
				for i := range padded.Bytes() {
					padded.Bytes()[i] ^= pad
				}
				texts[fmt.Sprintf("%s with the pad %x", name, pad)] = testenv.Inverted(padded.Bytes())
				padded.Wipe()
			}
		}
		if err := c.PolicyAuthValue(s); err != nil {
			t.Fatal(err)
		}
		got, err := c.Unseal(object, s, auth)
		if err != nil || !got.Equal(data) {
			t.Fatalf("unsealing: %v", err)
		}
		got.Wipe()
		c.Flush(object.Handle)
	}()
	runtime.GC()
	runtime.GC()
	for what, text := range texts {
		if n := testenv.Copies(t, text); n != 0 {
			t.Errorf("%d copies of the %s", n, what)
		}
	}
}

func pinPolicy() (d Digest) {
	d.AuthValue()
	return d
}
