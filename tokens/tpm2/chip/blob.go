package chip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// errTruncated is what readers of TPM structures say when bytes are missing.
var errTruncated = errors.New("is cut short")

// Cut2B splits a TPM2B (two bytes of length, then as many bytes) off b.
func Cut2B(b []byte) (content, rest []byte, err error) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, errTruncated
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n:n], b[n:], nil
}

// append2B is the opposite of cut2B. Content must be shorter than 64 KiB.
func append2B(b, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(content))), content...)
}

// Blob is one sealed object: an element of tpm2-blob, which is
// TPM2B_PRIVATE ‖ TPM2B_PUBLIC [‖ TPM2B_ENCRYPTED_SECRET], private first. The
// fields are without their lengths.
type Blob struct {
	Private, Public []byte
	// Seed is there for an object that was sealed without the TPM: private is
	// then a duplicate that TPM2_Import has to take first.
	Seed []byte
}

// Limits of what a TPM takes: the largest seed is one RSA-4096 block.
const (
	maxPrivate = 1024
	maxSeed    = 512
)

// ParseBlob reads one sealed object and checks its shape. Nothing else about it is
// trusted.
func ParseBlob(b []byte) (Blob, error) {
	var s Blob
	var err error
	if s.Private, b, err = Cut2B(b); err != nil {
		return s, fmt.Errorf("the private part %w", err)
	}
	if s.Public, b, err = Cut2B(b); err != nil {
		return s, fmt.Errorf("the public part %w", err)
	}
	if len(b) > 0 {
		if s.Seed, b, err = Cut2B(b); err != nil {
			return s, fmt.Errorf("the encrypted seed %w", err)
		}
	}
	switch {
	case len(b) > 0:
		return s, fmt.Errorf("%d bytes follow the sealed object", len(b))
	case len(s.Private) == 0 || len(s.Private) > maxPrivate:
		return s, fmt.Errorf("the private part has %d bytes", len(s.Private))
	case s.Seed != nil && (len(s.Seed) == 0 || len(s.Seed) > maxSeed):
		return s, fmt.Errorf("the encrypted seed has %d bytes", len(s.Seed))
	}
	return s, s.checkPublic()
}

// checkPublic wants a sealed object (TPM 2.0 Part 1 §28): keyed hash, no scheme,
// SHA-256 name, policy of that length.
func (s Blob) checkPublic() error {
	pub, err := parsePublic(s.Public)
	if err != nil {
		return fmt.Errorf("the public part %w", err)
	}
	if pub.Type != tpm2.TPMAlgKeyedHash || pub.NameAlg != tpm2.TPMAlgSHA256 {
		return fmt.Errorf("the public part is of type %#x with name hash %#x, not a sealed object", uint16(pub.Type), uint16(pub.NameAlg))
	}
	if n := len(pub.AuthPolicy.Buffer); n != sha256.Size {
		return fmt.Errorf("the policy in the public part has %d bytes, want %d", n, sha256.Size)
	}
	return nil
}

// Policy is the authPolicy of the sealed object, which parseBlob has checked.
func (s Blob) Policy() Digest {
	var d Digest
	if pub, err := parsePublic(s.Public); err == nil {
		copy(d[:], pub.AuthPolicy.Buffer)
	}
	return d
}

// Bytes is the form that parseBlob reads.
func (s Blob) Bytes() []byte {
	b := append2B(append2B(nil, s.Private), s.Public)
	if s.Seed != nil {
		b = append2B(b, s.Seed)
	}
	return b
}

// ObjectName is the name of an object with SHA-256 as name hash (TPM 2.0 Part 1
// §16), from the bytes of its TPMT_PUBLIC or TPMS_NV_PUBLIC.
func ObjectName(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append(binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgSHA256)), sum[:]...)
}

// parsePublic reads a TPMT_PUBLIC that fills b. go-tpm's reader neither minds
// bytes that follow nor promises not to panic on what a token may hold.
func parsePublic(b []byte) (pub *tpm2.TPMTPublic, err error) {
	defer recoverInto(&err)
	if pub, err = tpm2.Unmarshal[tpm2.TPMTPublic](b); err != nil {
		return nil, errors.New("is not well formed")
	}
	if !bytes.Equal(tpm2.Marshal(*pub), b) {
		return nil, errors.New("is not in the form that a TPM writes")
	}
	return pub, nil
}

// recoverInto turns a panic of go-tpm's reflection into an error. It is deferred.
func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = errors.New("is not well formed")
	}
}
