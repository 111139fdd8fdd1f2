package tpm2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Kinds of serialised resources (tpm2-tss include/tss2/tss2_esys.h,
// IESYSC_RESOURCE_TYPE).
const (
	resourceKey = 1
	resourceNV  = 2
)

// Ranges of handles (TPM 2.0 Part 2 §7.2).
const (
	handleNV         = 0x01
	handleTransient  = 0x80
	handlePersistent = 0x81

	handleSRK = tpm2.TPMHandle(0x81000001) // TCG TPM v2.0 Provisioning Guidance §7.5.1
)

// resource is a key or NV index as tpm2_srk, tpm2_pcrlock_nv and pcrlock.json
// hold it: handle ‖ TPM2B_NAME ‖ UINT32 kind ‖ TPM2B_PUBLIC or TPM2B_NV_PUBLIC,
// which is what tpm2-tss's Esys_TR_Serialize writes.
type resource struct {
	handle tpm2.TPMHandle
	name   []byte // computed from public when the kind is a key
	public []byte // TPMT_PUBLIC or TPMS_NV_PUBLIC
}

// parseResource reads a resource of the wanted kind. Bytes that newer versions of
// tpm2-tss may add at the end are ignored.
func parseResource(b []byte, kind uint32) (*resource, error) {
	if len(b) < 4 {
		return nil, errTruncated
	}
	r := &resource{handle: tpm2.TPMHandle(binary.BigEndian.Uint32(b))}
	var err error
	if r.name, b, err = cut2B(b[4:]); err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, errTruncated
	}
	if got := binary.BigEndian.Uint32(b); got != kind {
		return nil, fmt.Errorf("is a resource of kind %d, want %d", got, kind)
	}
	if r.public, _, err = cut2B(b[4:]); err != nil {
		return nil, err
	}
	if !bytes.Equal(r.name, objectName(r.public)) {
		return nil, errors.New("has a name that does not belong to its public part")
	}
	return r, nil
}

// bytes is the form that parseResource reads.
func (r *resource) bytes(kind uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(r.handle))
	b = binary.BigEndian.AppendUint32(append2B(b, r.name), kind)
	return append2B(b, r.public)
}

// parseParent reads the storage key of a token: tpm2_srk.
func parseParent(b []byte) (*parent, error) {
	r, err := parseResource(b, resourceKey)
	if err != nil {
		return nil, err
	}
	if k := r.handle >> 24; k != handlePersistent && k != handleTransient {
		return nil, fmt.Errorf("names handle %#x, which is no key", uint32(r.handle))
	}
	return newParent(r.handle, r.public)
}

// parseNVIndex reads tpm2_pcrlock_nv.
func parseNVIndex(b []byte) (*resource, error) {
	r, err := parseResource(b, resourceNV)
	if err != nil {
		return nil, err
	}
	if r.handle>>24 != handleNV {
		return nil, fmt.Errorf("names handle %#x, which is no NV index", uint32(r.handle))
	}
	return r, nil
}
