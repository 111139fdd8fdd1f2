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
	if _, err := sealedPolicy(s.Public); err != nil {
		return s, fmt.Errorf("the public part %w", err)
	}
	return s, nil
}

// errForm is about a public part that no TPM wrote.
var errForm = errors.New("is not in the form that a TPM writes")

// sealedPolicy reads the TPMT_PUBLIC of a sealed object (TPM 2.0 Part 1 §28): keyed
// hash, no scheme, SHA-256 name, policy of that length. go-tpm's reflection takes a
// hundred times as long for it, and every look at a volume reads one for each token.
func sealedPolicy(b []byte) (d Digest, err error) {
	const fixed = 2 + 2 + 4 // type, nameAlg, objectAttributes
	if len(b) < fixed {
		return d, errTruncated
	}
	kind, nameAlg := tpm2.TPMAlgID(binary.BigEndian.Uint16(b)), tpm2.TPMAlgID(binary.BigEndian.Uint16(b[2:]))
	if kind != tpm2.TPMAlgKeyedHash || nameAlg != tpm2.TPMAlgSHA256 {
		return d, fmt.Errorf("is of type %#x with name hash %#x, not a sealed object", uint16(kind), uint16(nameAlg))
	}
	policy, b, err := Cut2B(b[fixed:])
	if err != nil {
		return d, err
	}
	if len(policy) != len(d) {
		return d, fmt.Errorf("has a policy of %d bytes, want %d", len(policy), len(d))
	}
	b, plain := bytes.CutPrefix(b, binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgNull))) // scheme
	if _, b, err = Cut2B(b); !plain || err != nil || len(b) > 0 {                               // unique
		return d, errForm
	}
	return Digest(policy), nil
}

// Policy is the authPolicy of the sealed object, which [ParseBlob] has checked.
func (s Blob) Policy() Digest {
	d, _ := sealedPolicy(s.Public)
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
		return nil, errForm
	}
	return pub, nil
}

// recoverInto turns a panic of go-tpm's reflection into an error. It is deferred.
func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = errors.New("is not well formed")
	}
}
