package recovery

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"luksmith/luks2/secret"
)

// pattern is the format as systemd.cryptenroll documents it.
var pattern = regexp.MustCompile(`^([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}$`)

func TestGeneratedKeysHaveTheFormat(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		key := Generate()
		text := string(key.Bytes())
		key.Wipe()
		if len(text) != 71 || !pattern.MatchString(text) {
			t.Fatalf("generated %q", text)
		}
		if seen[text] {
			t.Fatal("a key came twice")
		}
		seen[text] = true
	}
}

func TestEncodePutsTheHighHalfFirst(t *testing.T) {
	raw := secret.New(keyBytes)
	for i := range raw.Bytes() {
		raw.Bytes()[i] = byte(i*16 + 15 - i%16)
	}
	key := encode(raw)
	defer secret.WipeAll([]secret.Secret{raw, key})
	if got := string(key.Bytes()[:8]); got != "cvbudter" {
		t.Errorf("0f 1e 2d 3c is %q, want cvbudter", got)
	}
	if back := decode(t, string(key.Bytes())); !bytes.Equal(back, raw.Bytes()) {
		t.Errorf("%x comes back as %x", raw.Bytes(), back)
	}
}

// decode is the way back, written apart from encode.
func decode(t *testing.T, key string) []byte {
	t.Helper()
	var out []byte
	digits := strings.NewReplacer("c", "0", "b", "1", "d", "2", "e", "3", "f", "4", "g", "5", "h", "6", "i", "7", "j", "8", "k", "9",
		"l", "a", "n", "b", "r", "c", "t", "d", "u", "e", "v", "f", "-", "").Replace(key)
	for i := 0; i < len(digits); i += 2 {
		hi, lo := strings.IndexByte("0123456789abcdef", digits[i]), strings.IndexByte("0123456789abcdef", digits[i+1])
		out = append(out, byte(hi<<4|lo))
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	for range 200 {
		raw := secret.Random(keyBytes)
		key := encode(raw)
		if !bytes.Equal(decode(t, string(key.Bytes())), raw.Bytes()) {
			t.Fatalf("%x is encoded as %s", raw.Bytes(), key.Bytes())
		}
		secret.WipeAll([]secret.Secret{raw, key})
	}
}

// chunks records the sizes of writes.
type chunks struct {
	bytes.Buffer
	sizes []int
}

func (c *chunks) Write(b []byte) (int, error) {
	c.sizes = append(c.sizes, len(b))
	return c.Buffer.Write(b)
}

func TestPrintWritesTheKeyAloneAtOnce(t *testing.T) {
	key := Generate()
	defer key.Wipe()
	var w chunks
	if err := Print(&w, key); err != nil || w.String() != string(key.Bytes())+"\n" || len(w.sizes) != 1 {
		t.Errorf("%v, %d writes, %d bytes", err, len(w.sizes), w.Len())
	}
	r, closed := io.Pipe()
	_ = r.Close()
	if err := Print(closed, key); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v, want the writer's error", err)
	}
}

// TestEveryBitOfAKeyIsRandom: half of the bits would pass for a key, too.
func TestEveryBitOfAKeyIsRandom(t *testing.T) {
	var ones, zeros [keyBytes]byte
	seen := map[string]bool{}
	for range 64 { // a right bit stays the same in one of 2^63 runs
		key := Generate()
		raw := decode(t, string(key.Bytes()))
		key.Wipe()
		for i, b := range raw {
			ones[i] |= b
			zeros[i] |= ^b
		}
		for at := 0; at < keyBytes; at += 8 { // nor is a part of it repeated
			part := string(raw[at:][:8])
			if seen[part] {
				t.Fatalf("bytes %d to %d came before", at, at+7)
			}
			seen[part] = true
		}
	}
	for i := range keyBytes {
		if ones[i] != 0xff || zeros[i] != 0xff {
			t.Errorf("byte %d: bits %08b are never set, %08b always", i, ^ones[i], ^zeros[i])
		}
	}
}
