package tpm2

import (
	"crypto"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/chip"
)

// fakeTPM is a chip of somebody's own making: it knows its storage key, loads
// whatever it is given, finds every policy satisfied and keeps what it sees.
type fakeTPM struct {
	path   string
	key    *ecdh.PrivateKey
	public []byte // TPMT_PUBLIC of the storage key
	// create changes the public area that TPM2_Create answers with.
	create func(*tpm2.TPMTPublic)

	mu       sync.Mutex
	sessions map[uint32]*fakeSession
	next     uint32
	unseals  []fakeUnseal
}

type fakeSession struct{ key, nonceCaller, nonceTPM []byte }

// fakeUnseal is what a guess at the PIN can be checked with.
type fakeUnseal struct {
	key, text, hmac []byte
}

func startFakeTPM(t testing.TB) *fakeTPM {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := chip.StorageTemplate("ecc", true)
	point := key.PublicKey().Bytes()
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})
	f := &fakeTPM{path: filepath.Join(t.TempDir(), "fake"), key: key, public: tpm2.Marshal(template), sessions: map[uint32]*fakeSession{}, next: 0x03000000}
	l, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.serve(conn)
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return f
}

func (f *fakeTPM) device() string { return "swtpm:path=" + f.path }

func (f *fakeTPM) serve(conn net.Conn) {
	defer conn.Close()
	for {
		command, err := readMessage(conn)
		if err != nil {
			return
		}
		f.mu.Lock()
		response := f.answer(command)
		f.mu.Unlock()
		binary.BigEndian.PutUint32(response[2:], uint32(len(response)))
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}

// plain is a successful response without sessions.
func plain(parts ...[]byte) []byte {
	b := []byte{0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func failing(rc uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 0}, rc)
}

func handleBytes(h uint32) []byte { return binary.BigEndian.AppendUint32(nil, h) }

func cut(b []byte) (content, rest []byte) {
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:]
}

func (f *fakeTPM) answer(command []byte) []byte {
	body := command[headerSize:]
	name := chip.ObjectName(f.public)
	switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
	case tpm2.TPMCCReadPublic:
		return plain(sized(f.public), sized(name), sized(name))
	case tpm2.TPMCCCreatePrimary:
		return withPassword(append(append(append(sized(f.public), sized(nil)...), sized(nil)...), append(nullTicket(0x8021), sized(name)...)...), handleBytes(0x80000001))
	case tpm2.TPMCCStartAuthSession:
		return f.startSession(body)
	case tpm2.TPMCCLoad:
		_, params := authArea(body[4:])
		_, rest := cut(params)
		public, _ := cut(rest)
		return withPassword(sized(chip.ObjectName(public)), handleBytes(0x80000002))
	case tpm2.TPMCCPolicyPCR, tpm2.TPMCCPolicyAuthValue, tpm2.TPMCCFlushContext:
		return plain()
	case tpm2.TPMCCUnseal:
		return f.unseal(body)
	case tpm2.TPMCCCreate:
		return f.created(body)
	}
	return failing(uint32(tpm2.TPMRCCommandCode))
}

func nullTicket(tag uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, tag), 0x40, 0, 0, 7, 0, 0)
}

// withPassword is a response to a command that a password authorized.
func withPassword(params, handles []byte) []byte {
	b := plain(handles, handleBytes(uint32(len(params))), params, []byte{0, 0, 1, 0, 0})
	b[1] = 2
	return b
}

// authArea splits the authorization area off.
func authArea(b []byte) (area, params []byte) {
	n := 4 + int(binary.BigEndian.Uint32(b))
	return b[4:n], b[n:]
}

func (f *fakeTPM) startSession(body []byte) []byte {
	nonceCaller, rest := cut(body[8:])
	encrypted, _ := cut(rest)
	x, rest := cut(encrypted)
	y, _ := cut(rest)
	pad := func(b []byte) []byte { return append(make([]byte, 32-len(b)), b...) }
	s := &fakeSession{nonceCaller: nonceCaller, nonceTPM: make([]byte, 16)}
	if peer, err := ecdh.P256().NewPublicKey(append([]byte{4}, append(pad(x), pad(y)...)...)); err == nil {
		z, _ := f.key.ECDH(peer)
		salt := tpm2.KDFe(crypto.SHA256, z, "SECRET", x, f.key.PublicKey().Bytes()[1:33], 256)
		s.key = tpm2.KDFa(crypto.SHA256, salt, "ATH", s.nonceTPM, nonceCaller, 256)
	}
	f.next++
	f.sessions[f.next] = s
	return plain(handleBytes(f.next), sized(s.nonceTPM))
}

// unseal keeps the HMAC, in which the PIN is the one thing it does not know.
func (f *fakeTPM) unseal(body []byte) []byte {
	area, _ := authArea(body[4:])
	s := f.sessions[binary.BigEndian.Uint32(area)]
	nonce, rest := cut(area[4:])
	attributes := rest[0]
	mac, _ := cut(rest[1:])
	f.unseals = append(f.unseals, fakeUnseal{key: s.key, text: append(append(append([]byte{}, nonce...), s.nonceTPM...), attributes), hmac: mac})
	return failing(uint32(tpm2.TPMRCAuthFail) | 0x900)
}

// guess tries a PIN off line.
func (u *fakeUnseal) guess(object []byte, auth secret.Secret) bool {
	cp := sha256.New()
	cp.Write(binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMCCUnseal)))
	cp.Write(chip.ObjectName(object))
	mac := hmac.New(sha256.New, append(append([]byte{}, u.key...), auth.Bytes()...))
	mac.Write(cp.Sum(nil))
	mac.Write(u.text)
	return hmac.Equal(mac.Sum(nil), u.hmac)
}

// created answers TPM2_Create with what the caller asked for, changed by create.
func (f *fakeTPM) created(body []byte) []byte {
	area, params := authArea(body[4:])
	_, rest := cut(params)
	public, _ := cut(rest)
	template, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return failing(uint32(tpm2.TPMRCFailure))
	}
	f.create(template)
	answer := append(append(sized(make([]byte, 64)), sized(tpm2.Marshal(*template))...), append(sized(nil), append(sized(nil), nullTicket(0x8021)...)...)...)
	area = area[4:] // the password: handle, nonce, attributes, authorization
	_, area = cut(area)
	_, area = cut(area[1:])
	s := f.sessions[binary.BigEndian.Uint32(area)]
	nonceCaller, area := cut(area[4:])
	rp := sha256.New()
	rp.Write(binary.BigEndian.AppendUint32(make([]byte, 4), uint32(tpm2.TPMCCCreate)))
	rp.Write(answer)
	mac := hmac.New(sha256.New, s.key)
	mac.Write(rp.Sum(nil))
	mac.Write(s.nonceTPM)
	mac.Write(nonceCaller)
	mac.Write(area[:1])
	b := withPassword(answer, nil)
	return append(append(append(b, sized(s.nonceTPM)...), area[0]), sized(mac.Sum(nil))...)
}
