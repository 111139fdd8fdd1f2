//go:build cgo

package main

import (
	"context"
	"encoding/binary"

	"github.com/miekg/pkcs11"

	"luksmith/internal/helper"
	"luksmith/tokens/pkcs11/certificate"
	"luksmith/tokens/pkcs11/wire"
)

// Bounds of an answer, which has to fit into one message. An attribute that is
// longer counts as absent, keys beyond the number are left out: KeyParams can
// select.
const (
	maxKeys      = 48
	maxAttribute = 3 << 10 // certificates of RSA-4096 keys have some 2 KiB
)

var errNotOpen = &helper.Error{Code: wire.CodeFailed, Message: "no module is open"}

// session returns the session with a slot. It stays open, because closing the
// last one logs out.
func (s *session) session(slot uint) (pkcs11.SessionHandle, error) {
	if s.module == nil {
		return 0, errNotOpen
	}
	if handle, ok := s.sessions[slot]; ok {
		return handle, nil
	}
	handle, err := s.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return 0, failure("opening a session with the token", err)
	}
	s.sessions[slot] = handle
	return handle, nil
}

// login implements wire.MethodLogin.
func (s *session) login(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.LoginParams](r)
	if err != nil {
		return nil, err
	}
	handle, err := s.session(params.Slot)
	if err != nil {
		return nil, err
	}
	err = s.module.Login(handle, pkcs11.CKU_USER, pin(r))
	if err != nil && !is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil, failure("logging in", err)
	}
	return nil, nil
}

// publicKeys implements wire.MethodPublicKeys.
func (s *session) publicKeys(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.KeyParams](r)
	if err != nil {
		return nil, err
	}
	keys := []wire.PublicKey{}
	err = s.each(params, pkcs11.CKO_PUBLIC_KEY, func(o object) {
		keys = append(keys, wire.PublicKey{
			ID: o.bytes(pkcs11.CKA_ID), Label: o.bytes(pkcs11.CKA_LABEL), Type: o.keyType(),
			Modulus: o.bytes(pkcs11.CKA_MODULUS), Exponent: o.bytes(pkcs11.CKA_PUBLIC_EXPONENT),
			Params: o.bytes(pkcs11.CKA_EC_PARAMS), Point: o.bytes(pkcs11.CKA_EC_POINT),
		})
	})
	if err != nil {
		return nil, err
	}
	err = s.each(params, pkcs11.CKO_CERTIFICATE, func(o object) {
		if kind, ok := o.number(pkcs11.CKA_CERTIFICATE_TYPE); ok && kind != pkcs11.CKC_X_509 {
			return
		}
		key, err := certificate.PublicKey(o.bytes(pkcs11.CKA_VALUE))
		if err != nil {
			key = &wire.PublicKey{}
		}
		key.ID, key.Label, key.Certificate = o.bytes(pkcs11.CKA_ID), o.bytes(pkcs11.CKA_LABEL), true
		keys = append(keys, *key)
	})
	return &helper.Reply{Result: keys}, err
}

// privateKeys implements wire.MethodPrivateKeys. A key is left out when the token
// says that it may not be used for what we need; one that does not say is in.
func (s *session) privateKeys(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.KeyParams](r)
	if err != nil {
		return nil, err
	}
	keys := []wire.PrivateKey{}
	err = s.each(params, pkcs11.CKO_PRIVATE_KEY, func(o object) {
		kind := o.keyType()
		if kind == wire.RSA && o.denies(pkcs11.CKA_DECRYPT) || kind == wire.EC && o.denies(pkcs11.CKA_DERIVE) || kind == "" {
			return
		}
		keys = append(keys, wire.PrivateKey{
			Handle: uint(o.handle), ID: o.bytes(pkcs11.CKA_ID), Label: o.bytes(pkcs11.CKA_LABEL), Type: kind,
			Modulus: o.bytes(pkcs11.CKA_MODULUS), Exponent: o.bytes(pkcs11.CKA_PUBLIC_EXPONENT), Params: o.bytes(pkcs11.CKA_EC_PARAMS),
			PINEachTime: o.says(pkcs11.CKA_ALWAYS_AUTHENTICATE),
		})
	})
	return &helper.Reply{Result: keys}, err
}

// each calls f for the objects of a class that the parameters select.
func (s *session) each(params wire.KeyParams, class uint, f func(object)) error {
	session, err := s.session(params.Slot)
	if err != nil {
		return err
	}
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if len(params.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, params.ID))
	}
	if len(params.Label) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, params.Label))
	}
	handles, err := s.find(session, template)
	if err != nil {
		return failure("looking for keys on the token", err)
	}
	for _, handle := range handles {
		o := object{s.module, session, handle}
		if got, ok := o.number(pkcs11.CKA_CLASS); ok && got != class {
			continue // modules are not trusted to have selected
		}
		f(o)
	}
	return nil
}

func (s *session) find(session pkcs11.SessionHandle, template []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := s.module.FindObjectsInit(session, template); err != nil {
		return nil, err
	}
	defer func() { _ = s.module.FindObjectsFinal(session) }()
	var all []pkcs11.ObjectHandle
	for len(all) < maxKeys {
		some, _, err := s.module.FindObjects(session, maxKeys-len(all))
		if err != nil {
			return nil, err
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	return all[:min(len(all), maxKeys)], nil
}

// object is an object of a token.
type object struct {
	module  *pkcs11.Ctx
	session pkcs11.SessionHandle
	handle  pkcs11.ObjectHandle
}

// bytes reads an attribute; nil if the object has none or keeps it secret. They
// are read one by one, because many modules fail a call for several if one is
// missing.
func (o object) bytes(attribute uint) []byte {
	got, err := o.module.GetAttributeValue(o.session, o.handle, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil || len(got) != 1 || len(got[0].Value) > maxAttribute {
		return nil
	}
	return got[0].Value
}

// number reads an attribute of type CK_ULONG.
func (o object) number(attribute uint) (uint, bool) {
	switch b := o.bytes(attribute); len(b) {
	case 8:
		return uint(binary.NativeEndian.Uint64(b)), true
	case 4:
		return uint(binary.NativeEndian.Uint32(b)), true
	}
	return 0, false
}

// says and denies report whether a CK_BBOOL is there and true, or there and false.
func (o object) says(attribute uint) bool {
	b := o.bytes(attribute)
	return len(b) == 1 && b[0] != 0
}

func (o object) denies(attribute uint) bool {
	b := o.bytes(attribute)
	return len(b) == 1 && b[0] == 0
}

// keyType is wire.RSA, wire.EC or "".
func (o object) keyType() string {
	kind, ok := o.number(pkcs11.CKA_KEY_TYPE)
	switch {
	case ok && kind == pkcs11.CKK_RSA:
		return wire.RSA
	case ok && kind == pkcs11.CKK_EC:
		return wire.EC
	}
	return ""
}
