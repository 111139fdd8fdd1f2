//go:build cgo

package main

import (
	"context"
	"encoding/asn1"
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens/pkcs11/wire"
)

// maxSecret bounds what a decryption may give: RSA-16384, as in the handler.
const maxSecret = 2048

// pin lends the PIN of a request to the library, which takes a string. "" without
// one: the library then passes NULL, which means the keypad. The copy that the
// library makes for C is not wiped; it goes with this process.
func pin(r *helper.Request) string {
	if len(r.Secrets) == 0 {
		return ""
	}
	return secret.UnsafeString(r.Secrets[0])
}

// decrypt implements wire.MethodDecrypt.
//
// Whether a ciphertext has the right padding must not be known to anybody: a
// header could be changed in many ways to learn the plaintext from the answers
// (Bleichenbacher 1998, Manger 2001). So a ciphertext that does not decrypt gives
// a random secret. It opens no keyslot, which is what a well-padded wrong one does
// as well, and everything from here on is the same. What went wrong before the
// card saw the ciphertext, or without regard to it, is reported.
func (s *session) decrypt(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.DecryptParams](r)
	if err != nil {
		return nil, err
	}
	if params.Size < 1 || params.Size > maxSecret || len(params.Ciphertext) == 0 {
		return nil, &helper.Error{Code: wire.CodeFailed, Message: "impossible size of a secret"}
	}
	mechanism, err := decryption(params.Padding)
	if err != nil {
		return nil, err
	}
	handle, err := s.session(params.Slot)
	if err != nil {
		return nil, err
	}
	if err := s.module.DecryptInit(handle, mechanism, pkcs11.ObjectHandle(params.Key)); err != nil {
		return nil, failure("starting to decrypt", err)
	}
	if len(r.Secrets) > 0 {
		if err := s.module.Login(handle, pkcs11.CKU_CONTEXT_SPECIFIC, pin(r)); err != nil {
			return nil, failure("logging in for this key", err)
		}
	}
	answer := secret.Random(params.Size)
	plain, err := s.module.Decrypt(handle, params.Ciphertext)
	if err != nil && aboutDevice(err) {
		answer.Wipe()
		return nil, failure("decrypting", err)
	}
	if err == nil && len(plain) > 0 {
		answer.Wipe()
		answer = secret.Take(plain)
	}
	return &helper.Reply{Secrets: []secret.Secret{answer}}, nil
}

// aboutDevice reports whether an error of C_Decrypt says nothing about the
// ciphertext. Codes that modules also use for bad padding, such as
// CKR_GENERAL_ERROR (SoftHSM) and CKR_DEVICE_ERROR (cards that remove it
// themselves), are not in the list.
func aboutDevice(err error) bool {
	var e pkcs11.Error
	return !errors.As(err, &e) || codeOf(e) == wire.CodeNotPresent || slices.Contains([]pkcs11.Error{
		pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		pkcs11.CKR_OPERATION_NOT_INITIALIZED, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
	}, e)
}

func decryption(p wire.Padding) ([]*pkcs11.Mechanism, error) {
	switch p {
	case wire.PKCS1:
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}, nil
	case wire.OAEPSHA1:
		return oaep(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1), nil
	case wire.OAEPSHA256:
		return oaep(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256), nil
	}
	return nil, &helper.Error{Code: wire.CodeFailed, Message: "unknown padding " + string(p)}
}

func oaep(hash, mgf uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP,
		pkcs11.NewOAEPParams(hash, mgf, pkcs11.CKZ_DATA_SPECIFIED, nil))}
}

// derive implements wire.MethodDerive.
func (s *session) derive(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.DeriveParams](r)
	if err != nil {
		return nil, err
	}
	if len(params.Point) < 3 || len(params.Point)%2 == 0 || params.Point[0] != 4 {
		return nil, &helper.Error{Code: wire.CodeFailed, Message: "the point is not uncompressed"}
	}
	handle, err := s.session(params.Slot)
	if err != nil {
		return nil, err
	}
	var value []byte
	for _, attempt := range s.derivations(params) {
		value, err = s.deriveValue(handle, pkcs11.ObjectHandle(params.Key), attempt)
		if err == nil || !aboutParameters(err) {
			break
		}
	}
	if err != nil {
		return nil, failure("deriving a key", err)
	}
	if len(value) == 0 || len(value) > maxSecret {
		return nil, &helper.Error{Code: wire.CodeFailed, Message: "deriving a key: the token gave none"}
	}
	return &helper.Reply{Secrets: []secret.Secret{secret.Take(value)}}, nil
}

// derivation is one way to ask for a key agreement.
type derivation struct {
	point []byte
	size  int // CKA_VALUE_LEN, 0 to leave it out
}

// derivations are the ways to try, the one of the specification first: the raw
// point (PKCS#11 2.40 §2.3.8), in its compressed form if the token takes no other.
// PKCS#11 2.20 did not say how the point is encoded, and some modules of its time
// want an OCTET STRING in DER or the length of the result.
func (s *session) derivations(params wire.DeriveParams) []derivation {
	point, size := params.Point, len(params.Point)/2
	if s.wantsCompressed(params.Slot) {
		point = append([]byte{2 | point[len(point)-1]&1}, point[1:1+size]...)
	}
	list := []derivation{{point, 0}}
	if wrapped, err := asn1.Marshal(point); err == nil {
		list = append(list, derivation{wrapped, 0}, derivation{point, size}, derivation{wrapped, size})
	}
	return list
}

// wantsCompressed reports whether the token says that it takes compressed points
// and does not say that it takes others.
func (s *session) wantsCompressed(slot uint) bool {
	info, err := s.module.GetMechanismInfo(slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, nil)})
	return err == nil && info.Flags&pkcs11.CKF_EC_COMPRESS != 0 && info.Flags&pkcs11.CKF_EC_UNCOMPRESS == 0
}

// deriveValue makes a session key by ECDH without a derivation function and reads
// it. The template is systemd's, so that what works there works here.
func (s *session) deriveValue(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, d derivation) ([]byte, error) {
	mechanism := pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, d.point))
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
	}
	if d.size > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, d.size))
	}
	derived, err := s.module.DeriveKey(session, []*pkcs11.Mechanism{mechanism}, key, template)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.module.DestroyObject(session, derived) }()
	got, err := s.module.GetAttributeValue(session, derived, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil {
		return nil, err
	}
	return got[0].Value, nil
}

// aboutParameters reports whether another way to ask may help. After anything else,
// such as a missing touch, asking again would only cost time.
func aboutParameters(err error) bool {
	var e pkcs11.Error
	return errors.As(err, &e) && slices.Contains([]pkcs11.Error{
		pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE,
		pkcs11.CKR_DOMAIN_PARAMS_INVALID, pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT,
		pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_KEY_SIZE_RANGE,
		pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED,
	}, e)
}
