package policy

import (
	"encoding/hex"
	"os"
	"testing"

	"luksmith/tokens/tpm2/chip"
)

const publicKeyPath = "../testdata/tpm2-pcr-public-key.pem"

func readTestFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// digest is the policy that the NV index approves: one PolicyPCR over the PCRs
// with one value, then for every other PCR a PolicyPCR and a PolicyOR.
func (p *PCRLock) digest() chip.Digest {
	var d chip.Digest
	if single := p.single(); len(single) > 0 {
		d.PCR(p.Bank, single)
	}
	for _, pcr := range p.several() {
		branches := p.branches(d, pcr)
		d.Or(branches)
	}
	return d
}

func TestSigningKeyFingerprintIsOfPKCS1(t *testing.T) {
	t.Parallel()
	key, err := ParseSigningKey(readTestFile(t, "../testdata/tpm2-pcr-public-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "d28989cb9bca5ae42043eb734df7b9b332890ab23c31222f7839cb43483545ae"; hex.EncodeToString(key.Fingerprint[:]) != want {
		t.Errorf("fingerprint %x, want %s", key.Fingerprint, want)
	}
}

func TestPCRLockDigest(t *testing.T) {
	t.Parallel()
	p, err := ParsePCRLock(readTestFile(t, "../testdata/pcrlock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if p.digest() != (chip.Digest{}) || p.NVIndex.Handle != 0x1a6a70c {
		t.Errorf("%+v", p)
	}
}

// FuzzParseSigningKey reads the PEM texts of tokens and files.
func FuzzParseSigningKey(f *testing.F) {
	f.Add(readTestFile(f, publicKeyPath))
	f.Fuzz(func(_ *testing.T, text []byte) {
		if key, err := ParseSigningKey(text); err == nil && key.RSA != nil {
			key.Name(65537)
			(&Signature{Sig: make([]byte, key.RSA.Size())}).Verify(key)
		}
	})
}

func FuzzParsePCRLock(f *testing.F) {
	f.Add(readTestFile(f, "../testdata/pcrlock.json"))
	f.Add([]byte(`{"pcrBank":"sha256","pcrValues":[{"pcr":7,"values":["` + hex.EncodeToString(make([]byte, 32)) + `"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := ParsePCRLock(text); err == nil {
			p.digest()
		}
	})
}

func FuzzParseSignatures(f *testing.F) {
	f.Add(readTestFile(f, "../testdata/tpm2-pcr-signature.json"))
	f.Add([]byte(`{"sha256":[{"pcrs":[11],"pkfp":"00"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ParseSignatures(text)
		for _, s := range list {
			if err != nil || s.Bank.Size() == 0 {
				t.Errorf("%+v, %v", s, err)
			}
		}
	})
}
