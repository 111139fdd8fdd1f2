package fidotest

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens/fido2/wire"
)

// platform is the other side of CTAP2 for [Bench]: what libfido2 does, in Go, as
// far as the tests need it. That both behave alike is shown by running the same
// tests through libfido2 and a [Key.Terminal].
type platform struct {
	key      *Key
	info     keyInfo
	protocol uint
}

type keyInfo struct {
	Versions   []string        `cbor:"1,keyasint"`
	Extensions []string        `cbor:"2,keyasint"`
	AAGUID     []byte          `cbor:"3,keyasint"`
	Options    map[string]bool `cbor:"4,keyasint"`
	Protocols  []uint          `cbor:"6,keyasint"`
}

var codes = map[status]string{
	statusNoCredentials: wire.NoCredentials, statusPINRequired: wire.PINRequired, statusPINInvalid: wire.PINInvalid,
	statusPINBlocked: wire.PINBlocked, statusPINAuthBlocked: wire.PINAuthBlocked, statusPINNotSet: wire.PINNotSet,
	statusPINPolicyViolation: wire.PINPolicy, statusUVBlocked: wire.UVBlocked, statusUVInvalid: wire.UVInvalid,
	statusActionTimeout: wire.ActionTimeout, statusUnsupportedOption: wire.UnsupportedOption, statusInvalidOption: wire.UnsupportedOption,
	statusUnsupportedAlgorithm: wire.UnsupportedAlgorithm, statusKeyStoreFull: wire.KeyStoreFull, statusKeepaliveCancel: wire.Cancelled,
}

func fail(code string) error { return &helper.Error{Code: code} }

func newPlatform(ctx context.Context, k *Key) (*platform, error) {
	p := &platform{key: k, protocol: 1}
	if err := p.call(ctx, commandGetInfo, nil, &p.info); err != nil {
		return nil, err
	}
	if slices.Contains(p.info.Protocols, 2) {
		p.protocol = 2
	}
	return p, nil
}

// call sends one command and decodes its answer.
func (p *platform) call(ctx context.Context, command byte, params, result any) error {
	request := []byte{command}
	if params != nil {
		request = append(request, must(answers.Marshal(params))...)
	}
	if p.key.fault() == Silent {
		<-ctx.Done()
		return fail(wire.Broken)
	}
	answer := p.key.Command(ctx, request)
	switch {
	case answer == nil && ctx.Err() != nil:
		return fail(wire.Cancelled)
	case answer == nil:
		return fail(wire.Removed)
	case answer[0] != 0 && codes[status(answer[0])] != "":
		return fail(codes[status(answer[0])])
	case answer[0] != 0:
		return &helper.Error{Code: wire.Broken, Message: status(answer[0]).Error()}
	}
	if cbor.Unmarshal(answer[1:], result) != nil {
		return fail(wire.Broken)
	}
	return nil
}

func (p *platform) wireInfo(ctx context.Context) (*wire.Info, error) {
	info := &wire.Info{AAGUID: p.info.AAGUID, Versions: p.info.Versions, Extensions: p.info.Extensions, Options: p.info.Options, PINRetries: -1}
	if !p.info.Options["clientPin"] {
		return info, nil
	}
	var answer struct {
		Retries int `cbor:"3,keyasint"`
	}
	if err := p.call(ctx, commandClientPIN, map[int]any{1: p.protocol, 2: pinGetRetries}, &answer); err != nil {
		return nil, err
	}
	info.PINRetries = answer.Retries
	return info, nil
}

// agree runs the key agreement.
func (p *platform) agree(ctx context.Context) (sharedSecret, coseKey, error) {
	var answer struct {
		Key coseKey `cbor:"1,keyasint"`
	}
	if err := p.call(ctx, commandClientPIN, map[int]any{1: p.protocol, 2: pinGetAgreement}, &answer); err != nil {
		return sharedSecret{}, coseKey{}, err
	}
	peer, err := answer.Key.parse()
	if err != nil {
		return sharedSecret{}, coseKey{}, fail(wire.Broken)
	}
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return sharedSecret{}, coseKey{}, err
	}
	return agree(p.protocol, own, peer), newCOSEKey(own.PublicKey()), nil
}

// authorise gets a PIN token by PIN or by built-in verification, and authenticates
// the client data with it. It does nothing when neither is wanted.
func (p *platform) authorise(ctx context.Context, pin secret.Secret, uv wire.Option, permission byte, rp string) ([]byte, error) {
	permissions := p.info.Options["pinUvAuthToken"]
	byUV := pin.Len() == 0 && uv == wire.True && permissions
	if pin.Len() == 0 && !byUV {
		return nil, nil
	}
	if byUV && !p.info.Options["uv"] {
		return nil, fail(wire.PINRequired)
	}
	shared, own, err := p.agree(ctx)
	if err != nil {
		return nil, err
	}
	params := map[int]any{1: p.protocol, 2: pinTokenByUV, 3: own, 9: permission, 10: rp}
	if !byUV {
		params[2], params[6] = pinTokenByPIN, shared.encrypt(pinHash(pin.Bytes()))
	}
	if !permissions {
		params[2] = pinGetToken
		delete(params, 9)
		delete(params, 10)
	}
	var answer struct {
		Token []byte `cbor:"2,keyasint"`
	}
	if err := p.call(ctx, commandClientPIN, params, &answer); err != nil {
		return nil, err
	}
	token, err := shared.decrypt(answer.Token)
	if err != nil {
		return nil, fail(wire.Broken)
	}
	return sharedSecret{protocol: p.protocol, hmacKey: token}.authenticate(make([]byte, sha256.Size)), nil
}

func optionMap(options map[string]wire.Option) map[string]bool {
	m := map[string]bool{}
	for name, o := range options {
		if o != wire.Omit {
			m[name] = o == wire.True
		}
	}
	return m
}

// finish adds what verification and options contribute to a command.
func (p *platform) finish(params map[int]any, auth []byte, optionsAt, authAt int, options map[string]wire.Option) {
	if auth != nil {
		params[authAt], params[authAt+1] = auth, p.protocol
		options["uv"] = wire.Omit
	}
	if m := optionMap(options); len(m) > 0 {
		params[optionsAt] = m
	}
}

func (p *platform) makeCredential(ctx context.Context, c *wire.NewCredential, pin secret.Secret) (*wire.Credential, error) {
	auth, err := p.authorise(ctx, pin, c.UV, permitCreate, c.RP)
	if err != nil {
		return nil, err
	}
	extensions := map[string]any{"hmac-secret": true}
	if c.ProtectUV {
		extensions["credProtect"] = 3
	}
	params := map[int]any{
		1: make([]byte, sha256.Size),
		2: map[string]string{"id": c.RP, "name": c.RPName},
		3: map[string]any{"id": c.UserID, "name": c.UserName, "displayName": c.DisplayName},
		4: []any{map[string]any{"alg": int(c.Algorithm), "type": "public-key"}},
		6: extensions,
	}
	p.finish(params, auth, 7, 8, map[string]wire.Option{"rk": c.RK, "uv": c.UV})
	var answer struct {
		AuthData []byte `cbor:"2,keyasint"`
	}
	if err := p.call(ctx, commandMakeCredential, params, &answer); err != nil {
		return nil, err
	}
	const idSizeAt = 32 + 1 + 4 + 16
	d := answer.AuthData
	if len(d) < idSizeAt+2 {
		return nil, fail(wire.Broken)
	}
	n := int(binary.BigEndian.Uint16(d[idSizeAt:]))
	if len(d) < idSizeAt+2+n {
		return nil, fail(wire.Broken)
	}
	return &wire.Credential{ID: d[idSizeAt+2:][:n]}, nil
}

func (p *platform) assert(ctx context.Context, a *wire.Assertion, pin, salts secret.Secret) (*wire.Asserted, error) {
	auth, err := p.authorise(ctx, pin, a.UV, permitAssert, a.RP)
	if err != nil {
		return nil, err
	}
	params := map[int]any{
		1: a.RP,
		2: make([]byte, sha256.Size),
		3: []any{map[string]any{"id": a.Credential, "type": "public-key"}},
	}
	var shared sharedSecret
	if salts.Len() > 0 {
		var own coseKey
		if shared, own, err = p.agree(ctx); err != nil {
			return nil, err
		}
		enc := shared.encrypt(salts.Bytes())
		ext := map[int]any{1: own, 2: enc, 3: shared.authenticate(enc)}
		if p.protocol == 2 {
			ext[4] = 2
		}
		params[4] = map[string]any{"hmac-secret": ext}
	}
	p.finish(params, auth, 5, 6, map[string]wire.Option{"up": a.UP, "uv": a.UV})
	var answer struct {
		AuthData []byte `cbor:"2,keyasint"`
	}
	if err := p.call(ctx, commandGetAssertion, params, &answer); err != nil {
		return nil, err
	}
	return p.open(answer.AuthData, shared, salts.Len())
}

// open takes flags and secret out of authenticator data.
func (p *platform) open(d []byte, shared sharedSecret, size int) (*wire.Asserted, error) {
	const flagsAt, extensionsAt = 32, 32 + 1 + 4
	if len(d) < extensionsAt {
		return nil, fail(wire.Broken)
	}
	result := &wire.Asserted{UP: d[flagsAt]&flagUP != 0, UV: d[flagsAt]&flagUV != 0}
	if size == 0 {
		return result, nil
	}
	var ext struct {
		Secret []byte `cbor:"hmac-secret"`
	}
	if d[flagsAt]&flagExtensions == 0 || cbor.Unmarshal(d[extensionsAt:], &ext) != nil {
		return nil, fail(wire.Broken)
	}
	out, err := shared.decrypt(ext.Secret)
	if err != nil {
		return nil, fail(wire.Broken)
	}
	if len(out) != size {
		return nil, fail(wire.Broken)
	}
	result.Secret = secret.Take(out)
	return result, nil
}
