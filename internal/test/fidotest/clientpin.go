package fidotest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
)

// Subcommands of clientPIN, CTAP 2.1 §6.5.5.
const (
	pinGetRetries   = 0x01
	pinGetAgreement = 0x02
	pinSet          = 0x03
	pinChange       = 0x04
	pinGetToken     = 0x05
	pinTokenByUV    = 0x06
	pinGetUVRetries = 0x07
	pinTokenByPIN   = 0x09
)

// Permissions of a PIN token, CTAP 2.1 §6.5.5.7.
const (
	permitCreate = 0x01
	permitAssert = 0x02
)

type pinRequest struct {
	Protocol     uint    `cbor:"1,keyasint"`
	Subcommand   int     `cbor:"2,keyasint"`
	KeyAgreement coseKey `cbor:"3,keyasint"`
	Auth         []byte  `cbor:"4,keyasint"`
	NewPINEnc    []byte  `cbor:"5,keyasint"`
	PINHashEnc   []byte  `cbor:"6,keyasint"`
	Permissions  byte    `cbor:"9,keyasint"`
	RP           string  `cbor:"10,keyasint"`
}

// coseKey is a public key for the key agreement.
type coseKey struct {
	Type      int    `cbor:"1,keyasint"`
	Algorithm int    `cbor:"3,keyasint"`
	Curve     int    `cbor:"-1,keyasint"`
	X         []byte `cbor:"-2,keyasint"`
	Y         []byte `cbor:"-3,keyasint"`
}

func newCOSEKey(p *ecdh.PublicKey) coseKey {
	b := p.Bytes()
	return coseKey{2, -25, 1, b[1:33], b[33:]} // EC2, ECDH-ES+HKDF-256, P-256
}

func (c coseKey) parse() (*ecdh.PublicKey, error) {
	return ecdh.P256().NewPublicKey(slices.Concat([]byte{4}, c.X, c.Y))
}

// pinToken is the secret with which a platform shows that it verified the user.
type pinToken struct {
	value       []byte
	permissions byte
	rp          string // empty: any
	present     bool   // the user was present when it was given out
}

// clientPIN is CTAP 2.1 §6.5.5.
func (k *Key) clientPIN(ctx context.Context, r *pinRequest) (any, status) {
	if !slices.Contains(k.protocols, r.Protocol) {
		return nil, statusInvalidParameter
	}
	switch r.Subcommand {
	case pinGetRetries:
		return map[int]any{3: k.PINRetries()}, 0
	case pinGetAgreement:
		k.mu.Lock()
		defer k.mu.Unlock()
		return map[int]any{1: newCOSEKey(k.agreement[r.Protocol].PublicKey())}, 0
	case pinSet, pinChange:
		return nil, k.setPIN(r)
	case pinGetToken:
		return k.tokenByPIN(r, permitCreate|permitAssert)
	case pinTokenByPIN:
		if k.permissions {
			return k.tokenByPIN(r, r.Permissions)
		}
	case pinTokenByUV:
		if k.permissions && k.hasBuiltInUV() {
			if s := k.readFinger(ctx); s != 0 {
				return nil, s
			}
			return k.newToken(r, pinToken{permissions: r.Permissions, rp: r.RP, present: true})
		}
	case pinGetUVRetries:
		if k.hasBuiltInUV() {
			k.mu.Lock()
			defer k.mu.Unlock()
			return map[int]any{5: k.uvRetries}, 0
		}
	}
	return nil, statusInvalidSubcommand
}

func (k *Key) hasBuiltInUV() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config.BuiltInUV
}

// newToken hands out a PIN token, encrypted.
func (k *Key) newToken(r *pinRequest, token pinToken) (any, status) {
	shared, s := k.sharedSecret(r.Protocol, r.KeyAgreement)
	if s != 0 {
		return nil, s
	}
	token.value = make([]byte, 32)
	rand.Read(token.value)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = token
	return map[int]any{2: shared.encrypt(token.value)}, 0
}

func (k *Key) tokenByPIN(r *pinRequest, permissions byte) (any, status) {
	if s := k.checkPIN(r); s != 0 {
		return nil, s
	}
	return k.newToken(r, pinToken{permissions: permissions, rp: r.RP})
}

// checkPIN counts tries as CTAP 2.1 §6.5.5.7.1 says.
func (k *Key) checkPIN(r *pinRequest) status {
	shared, s := k.sharedSecret(r.Protocol, r.KeyAgreement)
	if s != 0 {
		return s
	}
	hash, err := shared.decrypt(r.PINHashEnc)
	if err != nil {
		return statusInvalidParameter
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pinHash == nil {
		return statusPINNotSet
	}
	if s := k.blocked(); s != 0 {
		return s
	}
	if subtle.ConstantTimeCompare(hash, k.pinHash) == 1 {
		k.retries, k.wrongInARow, k.uvRetries = maxPINRetries, 0, maxUVRetries
		return 0
	}
	k.stats.WrongPINs++
	k.retries--
	k.wrongInARow++
	k.newAgreement(r.Protocol)
	if s := k.blocked(); s != 0 {
		return s
	}
	return statusPINInvalid
}

// blocked is the status of a key that looks at no PIN, 0 for another. k.mu is held.
func (k *Key) blocked() status {
	switch {
	case k.retries == 0:
		return statusPINBlocked
	case k.wrongInARow >= pinTriesInARow:
		return statusPINAuthBlocked
	}
	return 0
}

// refuses is the status with which firmware B ends commands while its PIN is
// blocked, with whatever options, also those that take no PIN, or that of a fault.
func (k *Key) refuses() status {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.config.Fault == ClaimsWrongPIN:
		return statusPINInvalid
	case !k.blockedRefuses:
		return 0
	}
	return k.blocked()
}

// setPIN sets the first PIN or, with the old one, another.
func (k *Key) setPIN(r *pinRequest) status {
	shared, s := k.sharedSecret(r.Protocol, r.KeyAgreement)
	if s != 0 {
		return s
	}
	if !shared.verify(r.Auth, slices.Concat(r.NewPINEnc, r.PINHashEnc)) {
		return statusPINAuthInvalid
	}
	padded, err := shared.decrypt(r.NewPINEnc)
	if err != nil || len(padded) != 64 {
		return statusInvalidParameter
	}
	pin := bytes.TrimRight(padded, "\x00")
	if len(pin) < 4 || len(pin) > 63 {
		return statusPINPolicyViolation
	}
	if r.Subcommand == pinChange {
		if s := k.checkPIN(r); s != 0 {
			return s
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Subcommand == pinSet && k.pinHash != nil {
		return statusPINAuthInvalid
	}
	k.pinHash, k.retries = pinHash(pin), maxPINRetries
	return 0
}

func pinHash(pin []byte) []byte {
	sum := sha256.Sum256(pin)
	return sum[:16]
}

// verification is what a command brings to show who the user is.
type verification struct {
	auth       []byte // over hash, with the PIN token
	protocol   uint
	hash       []byte
	rp         string
	permission byte
	uvOption   bool
	always     bool // alwaysUv applies
}

// verdict is what a key knows about its user.
type verdict struct {
	verified bool
	present  bool // no further touch is needed
}

// verifyUser decides whether the user counts as verified. It may read a finger.
func (k *Key) verifyUser(ctx context.Context, v verification) (verdict, status) {
	builtIn := k.hasBuiltInUV()
	switch {
	case v.auth != nil:
		return k.checkToken(v)
	case v.uvOption && !builtIn && k.ignoresUVOption:
		return verdict{}, 0
	case v.uvOption && !builtIn:
		return verdict{}, statusInvalidOption
	case v.always && !builtIn:
		return verdict{}, statusPINRequired
	case v.uvOption || v.always:
		return verdict{true, true}, k.readFinger(ctx)
	}
	return verdict{}, 0
}

// checkToken checks what a platform made with the PIN token. Presence counts once.
func (k *Key) checkToken(v verification) (verdict, status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	token := sharedSecret{protocol: v.protocol, hmacKey: k.token.value}
	if k.token.value == nil || k.token.permissions&v.permission == 0 || k.token.rp != "" && k.token.rp != v.rp ||
		!token.verify(v.auth, v.hash) {
		return verdict{}, statusPINAuthInvalid
	}
	present := k.token.present
	k.token.present = false
	return verdict{true, present}, 0
}

// sharedSecret is the result of the key agreement in one of the two PIN protocols,
// CTAP 2.1 §6.5.6 and §6.5.7.
type sharedSecret struct {
	protocol        uint
	hmacKey, aesKey []byte
}

func (k *Key) sharedSecret(protocol uint, peer coseKey) (sharedSecret, status) {
	k.mu.Lock()
	own := k.agreement[protocol]
	k.mu.Unlock()
	public, err := peer.parse()
	if own == nil || err != nil {
		return sharedSecret{}, statusInvalidParameter
	}
	return agree(protocol, own, public), 0
}

func agree(protocol uint, own *ecdh.PrivateKey, peer *ecdh.PublicKey) sharedSecret {
	z := must(own.ECDH(peer))
	if protocol == 1 {
		sum := sha256.Sum256(z)
		return sharedSecret{1, sum[:], sum[:]}
	}
	salt := make([]byte, 32)
	return sharedSecret{2, must(hkdf.Key(sha256.New, z, salt, "CTAP2 HMAC key", 32)), must(hkdf.Key(sha256.New, z, salt, "CTAP2 AES key", 32))}
}

func (s sharedSecret) authenticate(message []byte) []byte {
	h := hmac.New(sha256.New, s.hmacKey)
	h.Write(message)
	if s.protocol == 1 {
		return h.Sum(nil)[:16]
	}
	return h.Sum(nil)
}

func (s sharedSecret) verify(auth, message []byte) bool {
	return hmac.Equal(auth, s.authenticate(message))
}

func (s sharedSecret) encrypt(plain []byte) []byte {
	block, err := aes.NewCipher(s.aesKey)
	if err != nil {
		panic(err)
	}
	iv := make([]byte, aes.BlockSize)
	out := make([]byte, len(plain))
	if s.protocol == 2 {
		rand.Read(iv)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, plain)
	if s.protocol == 2 {
		return append(iv, out...)
	}
	return out
}

func (s sharedSecret) decrypt(b []byte) ([]byte, error) {
	iv := make([]byte, aes.BlockSize)
	if s.protocol == 2 && len(b) >= len(iv) {
		iv, b = b[:len(iv)], b[len(iv):]
	}
	if len(b) == 0 || len(b)%aes.BlockSize != 0 {
		return nil, errors.New("length is not a multiple of the block size")
	}
	block, err := aes.NewCipher(s.aesKey)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(b))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, b)
	return out, nil
}
