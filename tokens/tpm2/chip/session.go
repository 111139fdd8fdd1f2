package chip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// Sizes of a session: the nonce that starts it, its hash, its cipher.
const (
	nonceSize = 16
	aesKey    = 16
)

// Bits of TPMA_SESSION (TPM 2.0 Part 2 §8.4).
const (
	attrContinue = 1 << 0
	attrDecrypt  = 1 << 5
	attrEncrypt  = 1 << 6
)

// Session is a policy or HMAC session, salted to the parent's public key, so that
// its key is known to us and to the one TPM that has the private part. Used with a
// command it proves the command and the response to come from these two, and
// encrypts their first parameters both ways with AES-128-CFB.
//
// It replaces go-tpm's sessions for two reasons. Those cut an auth value at its
// first zero byte, where the standard trims trailing ones only (TPM 2.0 Part 1
// §19.6.5), so that one PIN in eight is refused and costs a lockout try. And here
// the plain text of a parameter never reaches the Go heap: outgoing and incoming
// are Secrets.
type Session struct {
	handle      tpm2.TPMHandle
	key         secret.Secret // sessionKey
	auth        secret.Secret // authValue of the object to authorise; borrowed
	nonceCaller []byte
	nonceTPM    []byte
	attributes  byte

	// outgoing, if not empty, is sent in place of the first parameter's
	// content, which must have its length.
	outgoing secret.Secret
	// incoming is the content of the response's first parameter. The parameter
	// itself stays encrypted.
	incoming secret.Secret
}

var _ tpm2.Session = (*Session)(nil)

// sessionOptions say what kind of session startSession makes.
type sessionOptions struct {
	kind tpm2.TPMSE // policy or HMAC
	// bind is an object whose auth value, auth, enters the session key: the first
	// command that uses the session proves that auth is right.
	bind tpm2.NamedHandle
	auth secret.Secret
}

// startSession makes a session salted to p. c flushes it unless the TPM does.
func (c *Conn) startSession(p *Parent, o sessionOptions) (*Session, error) {
	salt, encrypted, err := tpm2.CreateEncryptedSalt(rand.Reader, p.encapsulation)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(salt)
	s := &Session{nonceCaller: make([]byte, nonceSize), attributes: attrContinue}
	_ = s.NewNonceCaller()
	cmd := tpm2.StartAuthSession{
		TPMKey: p.Handle, Bind: tpm2.TPMRHNull, NonceCaller: tpm2.TPM2BNonce{Buffer: s.nonceCaller}, SessionType: o.kind,
		EncryptedSalt: tpm2.TPM2BEncryptedSecret{Buffer: encrypted}, AuthHash: tpm2.TPMAlgSHA256,
		Symmetric: tpm2.TPMTSymDef{
			Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(8*aesKey)),
			Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
	}
	if o.bind.Handle != 0 {
		cmd.Bind = o.bind.Handle
	}
	rsp, err := run(c, "TPM2_StartAuthSession", cmd)
	if err != nil {
		return nil, err
	}
	s.handle, s.nonceTPM = tpm2.TPMHandle(rsp.SessionHandle.HandleValue()), rsp.NonceTPM.Buffer
	authSalt := secret.New(o.auth.Len() + len(salt))
	defer authSalt.Wipe()
	copy(authSalt.Bytes()[copy(authSalt.Bytes(), o.auth.Bytes()):], salt)
	s.key = kdfa(authSalt, "ATH", nonces{s.nonceTPM, s.nonceCaller}, sha256.Size)
	return s, nil
}

// Close wipes the keys of the session and flushes it, if the TPM did not.
func (s *Session) Close(c *Conn) {
	s.key.Wipe()
	s.outgoing.Wipe()
	s.incoming.Wipe()
	if s.handle != tpm2.TPMRHNull {
		c.Flush(s.handle)
	}
}

// nonces are those of a message, the one made for it first. They are also
// contextU and contextV of KDFa.
type nonces struct{ newer, older []byte }

// kdfa is KDFa with SHA-256 (TPM 2.0 Part 1 §11.4.10.2), into a new secret.
func kdfa(key secret.Secret, label string, n nonces, size int) secret.Secret {
	var out secret.Secret
	secret.Do(func() {
		out = secret.New(size)
		for b, i := out.Bytes(), uint32(1); len(b) > 0; i++ {
			block := luks2.HMAC("sha256", key, binary.BigEndian.AppendUint32(nil, i), append([]byte(label), 0), n.newer, n.older,
				binary.BigEndian.AppendUint32(nil, uint32(8*size)))
			b = b[copy(b, block):]
			secret.Wipe(block)
		}
	})
	return out
}

// Init does nothing: startSession did.
func (s *Session) Init(transport.TPM) error { return nil }

// CleanupFailure does nothing: a command that failed leaves the session as it is,
// and close flushes it.
func (s *Session) CleanupFailure(transport.TPM) error { return nil }

// NonceTPM is the last nonce of the TPM.
func (s *Session) NonceTPM() tpm2.TPM2BNonce { return tpm2.TPM2BNonce{Buffer: s.nonceTPM} }

// NewNonceCaller makes the nonce of the next command.
func (s *Session) NewNonceCaller() error {
	s.nonceCaller = make([]byte, nonceSize)
	rand.Read(s.nonceCaller) // never fails, see crypto/rand
	return nil
}

// Authorize computes the HMAC of a command (TPM 2.0 Part 1 §19.6.5).
func (s *Session) Authorize(cc tpm2.TPMCC, params, addNonces []byte, names []tpm2.TPM2BName, _ int) (*tpm2.TPMSAuthCommand, error) {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(cc)))
	for _, name := range names {
		h.Write(name.Buffer)
	}
	h.Write(params)
	return &tpm2.TPMSAuthCommand{
		Handle:        s.handle,
		Nonce:         tpm2.TPM2BNonce{Buffer: s.nonceCaller},
		Attributes:    sessionAttributes(s.attributes),
		Authorization: tpm2.TPM2BData{Buffer: s.hmac(h.Sum(nil), s.nonceCaller, s.nonceTPM, addNonces, []byte{s.attributes})},
	}, nil
}

// Validate checks the HMAC of a response (TPM 2.0 Part 1 §19.6.7). Only a
// response that passes gets decrypted.
func (s *Session) Validate(rc tpm2.TPMRC, cc tpm2.TPMCC, params []byte, _ []tpm2.TPM2BName, _ int, auth *tpm2.TPMSAuthResponse) error {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(rc)))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(cc)))
	h.Write(params)
	attributes := attributeBits(auth.Attributes)
	if attributes != s.attributes {
		return errors.New("the response has other session attributes than the command")
	}
	want := s.hmac(h.Sum(nil), auth.Nonce.Buffer, s.nonceCaller, []byte{attributes})
	if !hmac.Equal(want, auth.Authorization.Buffer) {
		return ErrNotAuthentic
	}
	s.nonceTPM = auth.Nonce.Buffer
	return nil
}

// ErrNotAuthentic: the HMAC of a command or response is wrong, and no PIN is to
// blame.
var ErrNotAuthentic = errors.New("the messages are not authentic: somebody changed them on their way, or it is another TPM")

// hmac is HMAC-SHA256 over the parts, keyed with sessionKey ‖ authValue.
func (s *Session) hmac(parts ...[]byte) []byte {
	key := secret.Join(s.key, s.auth)
	defer key.Wipe()
	return luks2.HMAC("sha256", key, parts...)
}

// IsEncryption reports whether the response's first parameter is encrypted.
func (s *Session) IsEncryption() bool { return s.attributes&attrEncrypt != 0 }

// IsDecryption reports whether the command's first parameter is.
func (s *Session) IsDecryption() bool { return s.attributes&attrDecrypt != 0 }

// Handle is the handle of the session.
func (s *Session) Handle() tpm2.TPMHandle { return s.handle }

// Encrypt encrypts a command's first parameter in place; see outgoing.
func (s *Session) Encrypt(parameter []byte) error {
	plain := parameter
	if s.outgoing.Len() > 0 {
		plain = s.outgoing.Bytes()
	}
	if len(plain) != len(parameter) {
		return errors.New("the secret parameter has another length than its place holder")
	}
	return s.withCipher(nonces{s.nonceCaller, s.nonceTPM}, func(b cipher.Block, iv []byte) {
		//lint:ignore SA1019 the mode is the standard's; the HMAC authenticates what it does not
		cipher.NewCFBEncrypter(b, iv).XORKeyStream(parameter, plain)
	})
}

// Decrypt decrypts a response's first parameter into incoming.
func (s *Session) Decrypt(parameter []byte) error {
	s.incoming.Wipe()
	s.incoming = secret.New(len(parameter))
	return s.withCipher(nonces{s.nonceTPM, s.nonceCaller}, func(b cipher.Block, iv []byte) {
		//lint:ignore SA1019 as above
		cipher.NewCFBDecrypter(b, iv).XORKeyStream(s.incoming.Bytes(), parameter)
	})
}

// withCipher derives key and IV of one parameter (TPM 2.0 Part 1 §21.3).
func (s *Session) withCipher(n nonces, use func(b cipher.Block, iv []byte)) error {
	sessionValue := secret.Join(s.key, s.auth)
	defer sessionValue.Wipe()
	key := kdfa(sessionValue, "CFB", n, aesKey+aes.BlockSize)
	defer key.Wipe()
	var err error
	secret.Do(func() {
		var block cipher.Block
		if block, err = aes.NewCipher(key.Bytes()[:aesKey]); err == nil {
			use(block, key.Bytes()[aesKey:])
		}
	})
	return err
}

func sessionAttributes(bits byte) tpm2.TPMASession {
	return tpm2.TPMASession{ContinueSession: bits&attrContinue != 0, Decrypt: bits&attrDecrypt != 0, Encrypt: bits&attrEncrypt != 0}
}

func attributeBits(a tpm2.TPMASession) byte {
	var bits byte
	for i, set := range []bool{a.ContinueSession, a.AuditExclusive, a.AuditReset, a.GetReservedBit(3), a.GetReservedBit(4), a.Decrypt, a.Encrypt, a.Audit} {
		if set {
			bits |= 1 << i
		}
	}
	return bits
}
