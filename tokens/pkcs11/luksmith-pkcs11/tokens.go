//go:build cgo

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"luksmith/internal/helper"
	"luksmith/tokens/pkcs11/wire"
)

// maxSlots bounds the answer of a module. Real machines have a handful.
const maxSlots = 64

// poll is how often MethodWait looks. p11-kit's proxy cannot block until something
// happens (p11-kit 0.25 p11-kit/proxy.c, proxy_C_WaitForSlotEvent).
const poll = 400 * time.Millisecond

// tokens implements wire.MethodTokens.
func (s *session) tokens(context.Context, *helper.Request) (*helper.Reply, error) {
	list, err := s.list()
	return &helper.Reply{Result: list}, err
}

func (s *session) list() (*wire.Tokens, error) {
	if s.module == nil {
		return nil, errNotOpen
	}
	slots, err := s.slots()
	if err != nil {
		return nil, failure("listing slots", err)
	}
	state := sha256.New()
	list := &wire.Tokens{}
	for _, slot := range slots[:min(len(slots), maxSlots)] {
		token, err := s.token(slot)
		// A slot that cannot be asked has no token for us: an empty reader, or a
		// card that the module does not know.
		if err != nil {
			fmt.Fprintf(state, "%d %v\n", slot, err)
			continue
		}
		fmt.Fprintf(state, "%d %q %q %q\n", slot, token.Label, token.Model, token.Serial)
		list.Tokens = append(list.Tokens, *token)
	}
	list.State = fmt.Sprintf("%x", state.Sum(nil)[:16])
	return list, nil
}

// slots lists the slots, empty ones included: modules have to look for new readers
// only when asked for all.
func (s *session) slots() (slots []uint, err error) {
	for range 8 { // a reader may come between the call for the number and the one for the list
		slots, err = s.module.GetSlotList(false)
		if !is(err, pkcs11.CKR_BUFFER_TOO_SMALL) {
			break
		}
	}
	return slots, err
}

func (s *session) token(slot uint) (*wire.Token, error) {
	info, err := s.module.GetSlotInfo(slot)
	if err != nil {
		return nil, err
	}
	if info.Flags&pkcs11.CKF_TOKEN_PRESENT == 0 {
		return nil, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT)
	}
	t, err := s.module.GetTokenInfo(slot)
	if err != nil {
		return nil, err
	}
	return &wire.Token{
		Slot:             slot,
		SlotDescription:  unpadded(info.SlotDescription),
		SlotManufacturer: unpadded(info.ManufacturerID),
		Label:            unpadded(t.Label),
		Manufacturer:     unpadded(t.ManufacturerID),
		Model:            unpadded(t.Model),
		Serial:           unpadded(t.SerialNumber),
		Initialized:      t.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0,
		LoginRequired:    t.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0,
		Keypad:           t.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0,
		PINSet:           t.Flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0,
		PINCountLow:      t.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0,
		PINFinalTry:      t.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0,
		PINLocked:        t.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0,
		MinPIN:           pinLength(t.MinPinLen),
		MaxPIN:           pinLength(t.MaxPinLen),
		OAEP:             s.decryptsOAEP(slot),
	}, nil
}

// unpadded removes the blanks with which PKCS#11 fills up a text, and the zero
// bytes that some modules use instead.
func unpadded(text string) []byte { return []byte(strings.TrimRight(text, " \x00")) }

// pinLength is a length that makes sense, or 0: modules put anything here.
func pinLength(n uint) int {
	if n > 255 {
		return 0
	}
	return int(n)
}

func (s *session) decryptsOAEP(slot uint) bool {
	info, err := s.module.GetMechanismInfo(slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, nil)})
	return err == nil && info.Flags&pkcs11.CKF_DECRYPT != 0
}

// wait implements wire.MethodWait. It compares all that is known of the tokens
// once, and then watches for tokens that come and go. Asking for their names time
// and again would send commands to the cards, and OpenSC 0.23 hangs for good when a
// card goes while it sends one.
func (s *session) wait(ctx context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.WaitParams](r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(params.Milliseconds)*time.Millisecond)
	defer cancel()
	now, err := s.list()
	if err != nil || now.State != params.State {
		return &helper.Reply{Result: wire.WaitResult{Changed: true}}, err
	}
	before, err := s.presence()
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return &helper.Reply{Result: wire.WaitResult{}}, nil
		case <-tick.C:
		}
		now, err := s.presence()
		if err != nil || now != before {
			return &helper.Reply{Result: wire.WaitResult{Changed: true}}, err
		}
	}
}

// presence says in which slots there are tokens.
func (s *session) presence() (string, error) {
	slots, err := s.slots()
	if err != nil {
		return "", failure("listing slots", err)
	}
	var b strings.Builder
	for _, slot := range slots[:min(len(slots), maxSlots)] {
		info, err := s.module.GetSlotInfo(slot)
		fmt.Fprintf(&b, "%d %t\n", slot, err == nil && info.Flags&pkcs11.CKF_TOKEN_PRESENT != 0)
	}
	return b.String(), nil
}
