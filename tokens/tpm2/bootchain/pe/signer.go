package pe

import (
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// maxCertificates bounds the certificate table that is read.
const maxCertificates = 1 << 20

// Types of certificate (PE format, "The Attribute Certificate Table").
const certTypePKCS7 = 2

// ErrSignature: the certificate table cannot be read.
var ErrSignature = errors.New("signature that cannot be read")

// Signer names the certificate that a signature was made with.
type Signer struct {
	Issuer string // the issuer's name in DER, hexadecimal
	Serial string
}

// Signers are the certificates that the image is signed with, sorted. Nothing is
// verified: firmware did or will. It shows whether two images are let in by the
// same entry of the signature database.
func (m *Image) Signers() ([]Signer, error) {
	c := m.certificate
	if c.size == 0 {
		return nil, nil
	}
	if c.size > maxCertificates {
		return nil, fmt.Errorf("%w: %d bytes", ErrSignature, c.size)
	}
	table, err := readAt(m.r, c.start, c.size)
	if err != nil {
		return nil, err
	}
	var list []Signer
	for len(table) >= 8 {
		n := int(binary.LittleEndian.Uint32(table))
		if n < 8 || n > len(table) || binary.LittleEndian.Uint16(table[6:]) != certTypePKCS7 {
			return nil, ErrSignature
		}
		signers, err := signersOf(table[8:n])
		if err != nil {
			return nil, err
		}
		list = append(list, signers...)
		table = table[min((n+7)&^7, len(table)):] // each entry is padded to 8
	}
	slices.SortFunc(list, func(a, b Signer) int {
		return slices.Compare([]string{a.Issuer, a.Serial}, []string{b.Issuer, b.Serial})
	})
	return list, nil
}

// contentInfo and signedData are the parts of PKCS #7 (RFC 2315 §7, §9.1) that
// lead to the signers.
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,tag:0"`
}

type signedData struct {
	Version      int
	Algorithms   asn1.RawValue
	Content      asn1.RawValue
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
	CRLs         asn1.RawValue `asn1:"optional,tag:1"`
	Signers      []signerInfo  `asn1:"set"`
}

type signerInfo struct {
	Version int
	ID      struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	Rest asn1.RawValue
}

func signersOf(der []byte) ([]Signer, error) {
	var info contentInfo
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	var data signedData
	if _, err := asn1.Unmarshal(info.Content.Bytes, &data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	var list []Signer
	for _, s := range data.Signers {
		list = append(list, Signer{hex.EncodeToString(s.ID.Issuer.FullBytes), s.ID.Serial.Text(16)})
	}
	return list, nil
}
