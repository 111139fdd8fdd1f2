package chip

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// memberOfSamples is one member of the recorded tokens that is base64, decoded.
func memberOfSamples(f testing.TB, name string) [][]byte {
	f.Helper()
	files, err := filepath.Glob("../testdata/samples/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no samples: %v", err)
	}
	var list [][]byte
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			f.Fatal(err)
		}
		text, _ := m[name].(string)
		if b, err := base64.StdEncoding.DecodeString(text); err == nil && len(b) > 0 {
			list = append(list, b)
		}
	}
	return list
}

// FuzzParseBlob reads sealed objects: their private and public parts and seeds.
func FuzzParseBlob(f *testing.F) {
	for _, b := range memberOfSamples(f, "tpm2-blob") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseBlob(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Bytes(), b) {
			t.Errorf("written again it is %x", s.Bytes())
		}
		public, err := parsePublic(s.Public)
		if err != nil || !bytes.Equal(public.AuthPolicy.Buffer, digestBytes(s.Policy())) {
			t.Errorf("go-tpm: %v, %v", err, public)
		}
	})
}

func digestBytes(d Digest) []byte { return d[:] }

// TestReadingASealedObjectAllocatesNothing: it is done for each token of a volume at
// each boot, and takes go-tpm a thousand allocations.
func TestReadingASealedObjectAllocatesNothing(t *testing.T) {
	if testenv.RaceDetector {
		testenv.NotApplicable(t, "the race detector takes memory itself")
	}
	blob := memberOfSamples(t, "tpm2-blob")[0]
	if n := testing.AllocsPerRun(10, func() {
		s, err := ParseBlob(blob)
		if _ = s.Policy(); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestSealedObjectsAreReadAsGoTPMReadsThem changes each byte of real public parts.
func TestSealedObjectsAreReadAsGoTPMReadsThem(t *testing.T) {
	compare := func(b []byte) {
		t.Helper()
		d, err := sealedPolicy(b)
		theirs, theirErr := parsePublic(b)
		sealed := theirErr == nil && theirs.Type == tpm2.TPMAlgKeyedHash && theirs.NameAlg == tpm2.TPMAlgSHA256 && len(theirs.AuthPolicy.Buffer) == len(d)
		if sealed {
			p, err := theirs.Parameters.KeyedHashDetail()
			sealed = err == nil && p.Scheme.Scheme == tpm2.TPMAlgNull
		}
		if sealed != (err == nil) || sealed && !bytes.Equal(theirs.AuthPolicy.Buffer, d[:]) {
			t.Errorf("%x: %v, go-tpm: %v", b, err, theirErr)
		}
	}
	for _, b := range memberOfSamples(t, "tpm2-blob") {
		s, err := ParseBlob(b)
		if err != nil {
			t.Fatal(err)
		}
		compare(s.Public)
		for i := range s.Public {
			compare(s.Public[:i])
			for _, mask := range []byte{1, 2, 4, 0x80, 0xff} {
				s.Public[i] ^= mask
				compare(s.Public)
				s.Public[i] ^= mask
			}
		}
		compare(append(s.Public, 0))
	}
}

// FuzzParsePublic reads public areas as storage keys: a session is salted to them.
func FuzzParsePublic(f *testing.F) {
	for _, b := range memberOfSamples(f, "tpm2_srk") {
		if p, err := ParseParent(b); err == nil {
			f.Add(p.Public)
		}
	}
	f.Add(tpm2.Marshal(StorageTemplate("rsa", true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := NewParent(HandleSRK, b)
		if err != nil {
			return
		}
		again, err := ParseParent(p.Resource().Bytes(ResourceKey))
		if err != nil || !bytes.Equal(again.Public, b) {
			t.Errorf("as a resource: %v", err)
		}
		if _, err := SealOffline(p, Object{Data: secret.Copy([]byte("secret"))}); err != nil {
			t.Logf("no object can be sealed for it: %v", err)
		}
	})
}

// FuzzParseResource reads what tpm2_srk, tpm2_pcrlock_nv and pcrlock files hold.
func FuzzParseResource(f *testing.F) {
	for _, name := range []string{"tpm2_srk", "tpm2_pcrlock_nv"} {
		for _, b := range memberOfSamples(f, name) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParseParent(b); err == nil && !bytes.HasPrefix(b, p.Resource().Bytes(ResourceKey)) {
			t.Error("a key that is written otherwise")
		}
		if r, err := ParseNVIndex(b); err == nil && !bytes.HasPrefix(b, r.Bytes(ResourceNV)) {
			t.Error("an index that is written otherwise")
		}
	})
}
