package chip

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
	ResourceKey = 1
	ResourceNV  = 2
)

// Ranges of handles (TPM 2.0 Part 2 §7.2).
const (
	handleNV         = 0x01
	HandleTransient  = 0x80
	HandlePersistent = 0x81

	HandleSRK = tpm2.TPMHandle(0x81000001) // TCG TPM v2.0 Provisioning Guidance §7.5.1
)

// Resource is a key or NV index as tpm2_srk, tpm2_pcrlock_nv and pcrlock.json
// hold it: handle ‖ TPM2B_NAME ‖ UINT32 kind ‖ TPM2B_PUBLIC or TPM2B_NV_PUBLIC,
// which is what tpm2-tss's Esys_TR_Serialize writes.
type Resource struct {
	Handle tpm2.TPMHandle
	Name   []byte // computed from public when the kind is a key
	Public []byte // TPMT_PUBLIC or TPMS_NV_PUBLIC
}

// parseResource reads a resource of the wanted kind. Bytes that newer versions of
// tpm2-tss may add at the end are ignored.
func parseResource(b []byte, kind uint32) (*Resource, error) {
	if len(b) < 4 {
		return nil, errTruncated
	}
	r := &Resource{Handle: tpm2.TPMHandle(binary.BigEndian.Uint32(b))}
	var err error
	if r.Name, b, err = Cut2B(b[4:]); err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, errTruncated
	}
	if got := binary.BigEndian.Uint32(b); got != kind {
		return nil, fmt.Errorf("is a resource of kind %d, want %d", got, kind)
	}
	if r.Public, _, err = Cut2B(b[4:]); err != nil {
		return nil, err
	}
	if !bytes.Equal(r.Name, ObjectName(r.Public)) {
		return nil, errors.New("has a name that does not belong to its public part")
	}
	return r, nil
}

// Bytes is the form that parseResource reads.
func (r *Resource) Bytes(kind uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(r.Handle))
	b = binary.BigEndian.AppendUint32(append2B(b, r.Name), kind)
	return append2B(b, r.Public)
}

// ParseParent reads the storage key of a token: tpm2_srk.
func ParseParent(b []byte) (*Parent, error) {
	r, err := parseResource(b, ResourceKey)
	if err != nil {
		return nil, err
	}
	if k := r.Handle >> 24; k != HandlePersistent && k != HandleTransient {
		return nil, fmt.Errorf("names handle %#x, which is not a key", uint32(r.Handle))
	}
	return NewParent(r.Handle, r.Public)
}

// ParseNVIndex reads tpm2_pcrlock_nv.
func ParseNVIndex(b []byte) (*Resource, error) {
	r, err := parseResource(b, ResourceNV)
	if err != nil {
		return nil, err
	}
	if r.Handle>>24 != handleNV {
		return nil, fmt.Errorf("names handle %#x, which is not a NV index", uint32(r.Handle))
	}
	return r, nil
}
