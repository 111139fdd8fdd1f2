package fidotest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"slices"
)

// COSE algorithm numbers.
const (
	algES256 = -7
	algEdDSA = -8
)

// Flags of authenticator data, WebAuthn level 2 §6.1.
const (
	flagUP         = 0x01
	flagUV         = 0x04
	flagCredential = 0x40
	flagExtensions = 0x80
)

type createRequest struct {
	ClientDataHash []byte `cbor:"1,keyasint"`
	RP             struct {
		ID string `cbor:"id"`
	} `cbor:"2,keyasint"`
	User struct {
		ID []byte `cbor:"id"`
	} `cbor:"3,keyasint"`
	Algorithms []struct {
		Type string `cbor:"type"`
		Alg  int    `cbor:"alg"`
	} `cbor:"4,keyasint"`
	Exclude    []descriptor `cbor:"5,keyasint"`
	Extensions struct {
		HMACSecret  bool `cbor:"hmac-secret"`
		CredProtect int  `cbor:"credProtect"`
	} `cbor:"6,keyasint"`
	Options     options `cbor:"7,keyasint"`
	PINAuth     []byte  `cbor:"8,keyasint"`
	PINProtocol uint    `cbor:"9,keyasint"`
}

type descriptor struct {
	ID   []byte `cbor:"id"`
	Type string `cbor:"type"`
}

type options struct {
	RK *bool `cbor:"rk"`
	UP *bool `cbor:"up"`
	UV *bool `cbor:"uv"`
}

func is(b *bool) bool { return b != nil && *b }

// credential is what a credential id stands for. Nothing is stored in the key: the
// id holds a nonce and the parameters under a MAC.
type credential struct {
	id         []byte
	algorithm  int
	protect    byte // credProtect level, 1..3
	hmacSecret bool
}

// Layout of a credential id: nonce, parameters, MAC, filler.
const (
	nonceSize  = 16
	paramsSize = 3
	macAt      = nonceSize + paramsSize
	smallestID = macAt + sha256.Size
)

func (k *Key) newCredential(rp string, c credential) *credential {
	c.id = make([]byte, nonceSize, smallestID)
	rand.Read(c.id)
	c.id = append(c.id, byte(-c.algorithm), c.protect, 0)
	if c.hmacSecret {
		c.id[len(c.id)-1] = 1
	}
	c.id = append(c.id, k.mac([]byte("id"), []byte(rp), c.id)...)
	for filler := byte(0); len(c.id) < k.config.CredentialIDSize; filler++ {
		c.id = append(c.id, filler)
	}
	return &c
}

// find returns the credential of an id if this key made it for that relying party.
func (k *Key) find(rp string, id []byte) *credential {
	if len(id) < smallestID || len(id) != max(smallestID, k.config.CredentialIDSize) ||
		!hmac.Equal(id[macAt:smallestID], k.mac([]byte("id"), []byte(rp), id[:macAt])) {
		return nil
	}
	return &credential{id: id, algorithm: -int(id[nonceSize]), protect: id[nonceSize+1], hmacSecret: id[nonceSize+2] == 1}
}

// secretKey is CredRandomWithUV or CredRandomWithoutUV, CTAP 2.1 §12.5.
func (k *Key) secretKey(c *credential, uv bool) []byte {
	name := "without UV"
	if uv {
		name = "with UV"
	}
	return k.mac([]byte(name), c.id)
}

func (k *Key) ecdsaKey(c *credential) *ecdsa.PrivateKey {
	curve := elliptic.P256()
	d := new(big.Int).SetBytes(k.mac([]byte("signature"), c.id))
	d.Mod(d, new(big.Int).Sub(curve.Params().N, big.NewInt(1))).Add(d, big.NewInt(1))
	key, err := ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, 32)))
	if err != nil {
		panic(err)
	}
	return key
}

func (k *Key) ed25519Key(c *credential) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(k.mac([]byte("signature"), c.id))
}

func (k *Key) sign(c *credential, authData, clientDataHash []byte) []byte {
	message := slices.Concat(authData, clientDataHash)
	if c.algorithm == algEdDSA {
		return ed25519.Sign(k.ed25519Key(c), message)
	}
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, k.ecdsaKey(c), sum[:])
	if err != nil {
		panic(err)
	}
	return sig
}

// publicKey is the COSE form.
func (k *Key) publicKey(c *credential) []byte {
	var cose map[int]any
	if c.algorithm == algEdDSA {
		cose = map[int]any{1: 1, 3: algEdDSA, -1: 6, -2: []byte(k.ed25519Key(c).Public().(ed25519.PublicKey))}
	} else {
		point, err := k.ecdsaKey(c).PublicKey.Bytes() // 04 ‖ x ‖ y
		if err != nil {
			panic(err)
		}
		cose = map[int]any{1: 2, 3: algES256, -1: 1, -2: point[1:33], -3: point[33:]}
	}
	return must(answers.Marshal(cose))
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// authData is WebAuthn level 2 §6.1.
func (k *Key) authData(rp string, flags byte, rest ...[]byte) []byte {
	k.mu.Lock()
	k.counter++
	counter := k.counter
	k.mu.Unlock()
	hash := sha256.Sum256([]byte(rp))
	b := binary.BigEndian.AppendUint32(append(hash[:], flags), counter)
	return slices.Concat(append([][]byte{b}, rest...)...)
}

// makeCredential is CTAP 2.1 §6.1.2, without credentials stored in the key.
func (k *Key) makeCredential(ctx context.Context, r *createRequest) (any, status) {
	k.mu.Lock()
	k.stats.Creations++
	config, hasPIN := k.config, k.pinHash != nil
	k.mu.Unlock()
	if s := k.refuses(); s != 0 {
		return nil, s
	}
	if len(r.ClientDataHash) != sha256.Size || r.RP.ID == "" || len(r.User.ID) == 0 || len(r.User.ID) > 64 {
		return nil, statusMissingParameter
	}
	c := credential{algorithm: k.chooseAlgorithm(r), protect: max(1, byte(r.Extensions.CredProtect)),
		hmacSecret: r.Extensions.HMACSecret && !config.NoHMACSecret}
	switch {
	case c.algorithm == 0:
		return nil, statusUnsupportedAlgorithm
	case r.Options.UP != nil && !*r.Options.UP:
		return nil, statusInvalidOption
	case is(r.Options.RK):
		return nil, statusKeyStoreFull
	}
	v := verification{auth: r.PINAuth, protocol: r.PINProtocol, hash: r.ClientDataHash, rp: r.RP.ID,
		permission: permitCreate, uvOption: is(r.Options.UV), always: config.AlwaysUV}
	user, s := k.verifyUser(ctx, v)
	if s != 0 {
		return nil, s
	}
	if !user.verified && hasPIN && !k.createsWithoutPIN {
		return nil, statusPINRequired
	}
	for _, d := range r.Exclude {
		if k.find(r.RP.ID, d.ID) != nil {
			return nil, statusCredentialExcluded
		}
	}
	if !user.present {
		if s := k.waitForTouch(ctx); s != 0 {
			return nil, s
		}
	}
	return k.attest(r, k.newCredential(r.RP.ID, c), user.verified), 0
}

func (k *Key) chooseAlgorithm(r *createRequest) int {
	for _, a := range r.Algorithms {
		if a.Alg == algES256 || a.Alg == algEdDSA && k.edDSA {
			return a.Alg
		}
	}
	return 0
}

// attest makes the answer, a packed self attestation (WebAuthn level 2 §8.2).
func (k *Key) attest(r *createRequest, c *credential, uv bool) any {
	flags := byte(flagUP | flagCredential)
	if uv {
		flags |= flagUV
	}
	extensions := map[string]any{}
	if c.hmacSecret {
		extensions["hmac-secret"] = true
	}
	if r.Extensions.CredProtect > 0 && slices.Contains(k.extensions, "credProtect") {
		extensions["credProtect"] = r.Extensions.CredProtect
	}
	var encoded []byte
	if len(extensions) > 0 {
		flags |= flagExtensions
		encoded = must(answers.Marshal(extensions))
	}
	id := c.id
	switch k.fault() {
	case EmptyID:
		id = nil
	case HugeID:
		id = bytes.Repeat([]byte{7}, 2000)
	}
	aaguid := k.config.AAGUID
	data := k.authData(r.RP.ID, flags, aaguid[:], binary.BigEndian.AppendUint16(nil, uint16(len(id))), id, k.publicKey(c), encoded)
	statement := map[string]any{"alg": c.algorithm, "sig": k.sign(c, data, r.ClientDataHash)}
	return map[int]any{1: "packed", 2: data, 3: statement}
}
