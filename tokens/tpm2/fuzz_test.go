package tpm2

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
)

// FuzzParseBlob reads sealed objects: their private and public parts and seeds.
func FuzzParseBlob(f *testing.F) {
	for _, raw := range samples(f) {
		for _, b := range tokenOf(f, raw).blobs {
			f.Add(b.bytes())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseBlob(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.bytes(), b) {
			t.Errorf("written again it is %x", s.bytes())
		}
		s.policy()
	})
}

// FuzzParsePublic reads public areas as storage keys: a session is salted to them.
func FuzzParsePublic(f *testing.F) {
	for _, raw := range samples(f) {
		if p := tokenOf(f, raw).parent; p != nil {
			f.Add(p.public)
		}
	}
	f.Add(tpm2.Marshal(storageTemplate("rsa", true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := newParent(handleSRK, b)
		if err != nil {
			return
		}
		again, err := parseParent(p.resource().bytes(resourceKey))
		if err != nil || !bytes.Equal(again.public, b) {
			t.Errorf("as a resource: %v", err)
		}
		if _, err := sealOffline(p, sealedObject{data: secret.Copy([]byte("secret"))}); err != nil {
			t.Logf("no object can be sealed for it: %v", err)
		}
	})
}

// FuzzParseResource reads what tpm2_srk, tpm2_pcrlock_nv and pcrlock files hold.
func FuzzParseResource(f *testing.F) {
	for _, raw := range samples(f) {
		tok := tokenOf(f, raw)
		if tok.parent != nil {
			f.Add(tok.parent.resource().bytes(resourceKey))
		}
		if tok.nvIndex != nil {
			f.Add(tok.nvIndex.bytes(resourceNV))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseParent(b); err == nil && !bytes.HasPrefix(b, p.resource().bytes(resourceKey)) {
			t.Error("a key that is written otherwise")
		}
		if r, err := parseNVIndex(b); err == nil && !bytes.HasPrefix(b, r.bytes(resourceNV)) {
			t.Error("an index that is written otherwise")
		}
	})
}

// FuzzParseSigningKey reads the PEM texts of tokens and files.
func FuzzParseSigningKey(f *testing.F) {
	f.Add(readTestFile(f, publicKeyPath))
	f.Fuzz(func(_ *testing.T, text []byte) {
		if key, err := parseSigningKey(text); err == nil && key.rsa != nil {
			key.name(65537)
			(&signature{sig: make([]byte, key.rsa.Size())}).verify(key)
		}
	})
}

// FuzzOpenCredential reads the policies that come with a kernel, before and after
// they are decrypted: no mutation passes that.
func FuzzOpenCredential(f *testing.F) {
	f.Add([]byte(nullCredential), append(make([]byte, 16), 1, 0, 0, 0, 'n', 0, 0, 0, '{', '}'))
	f.Fuzz(func(t *testing.T, text, plain []byte) {
		_, _ = openCredential(text)
		if content, err := credentialContent(plain); err == nil && len(content) > len(plain)-20 {
			t.Errorf("%d bytes of content out of %d", len(content), len(plain))
		}
	})
}

// FuzzResponses plays a TPM that answers what it likes: nothing may come out of it
// but errors, and no key.
func FuzzResponses(f *testing.F) {
	var list []*token
	for _, name := range []string{"t257", "pin257", "t252", "off257", "pub257", "nopcr257"} {
		list = append(list, tokenOf(f, samples(f)[name]))
	}
	public := list[0].parent.public
	success := func(body []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{0}, uint16(len(body))), body...)
	}
	handle := []byte{0x80, 0, 0, 0}
	load := success(append(handle, append2B(nil, objectName(list[0].blobs[0].public))...))
	session := success(append([]byte{3, 0, 0, 0}, append2B(nil, make([]byte, 16))...))
	for operation := range byte(16) {
		f.Add(operation, bytes.Join([][]byte{load, session, success(nil), success(nil)}, nil))
		f.Add(operation, success(append2B(nil, public)))
		f.Add(operation, success([]byte{0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0}))
	}
	f.Fuzz(func(t *testing.T, operation byte, answers []byte) {
		h := &Handler{Paths: Paths{Root: "/nonexistent"}}
		c := &conn{ctx: t.Context(), link: &scriptedLink{answers}}
		o := &opener{h: h, c: c, knownPIN: secret.Copy([]byte("4711"))}
		defer o.knownPIN.Wipe()
		switch int(operation) {
		case 0, 1, 2, 3, 4, 5:
			if _, err := o.open(list[operation]); err == nil {
				t.Error("a key came out of noise")
			}
		case 6:
			_, _ = c.lockout()
		case 7:
			_, _ = c.product()
		case 8:
			_, _ = c.banks()
		case 9:
			_, _ = c.readPCRs(bankSHA256, 1<<24-1)
		case 10:
			_, _ = c.usedBanks([]bank{bankSHA256, bankSHA1})
		case 11:
			_, _ = c.makeSRK()
		case 12:
			if _, err := c.seal(list[0].parent, sealedObject{data: o.knownPIN}); err == nil {
				t.Error("noise was taken for a sealed object")
			}
		case 13:
			if err := c.checkAuth(list[0].parent, tpm2.NamedHandle{Handle: 0x80000000}, o.knownPIN); err == nil {
				t.Error("noise was taken for a right PIN")
			}
		case 14:
			e := h.newEnrollment(&settings{req: having(), compat: newestSystemd, pcrs: pcrSelection{set: 1 << 7}}, c, nil)
			_ = e.prepare()
		}
		c.Close()
	})
}

// scriptedLink is a TPM whose answers were written down: for each a byte with its
// kind, two with the length of its body, and the body.
type scriptedLink struct{ answers []byte }

func (*scriptedLink) Close() error { return nil }

func (l *scriptedLink) exchange(_ context.Context, command []byte) ([]byte, error) {
	if len(l.answers) < 3 {
		return nil, io.EOF
	}
	kind, n := l.answers[0], int(binary.BigEndian.Uint16(l.answers[1:]))
	body := l.answers[3:][:min(n, len(l.answers)-3, maxResponse-headerSize)]
	l.answers = l.answers[3+len(body):]
	response := bytes.Clone(command[:headerSize]) // tag
	copy(response[6:], make([]byte, 4))           // success
	switch {
	case kind == 1 && len(body) >= 2: // a format-zero or format-one code
		copy(response, []byte{0x80, 1})
		copy(response[8:], body[:2])
		body = nil
	case kind == 2 && len(body) >= 2:
		copy(response, body[:2]) // another tag
	}
	if isBusy(responseCode(response)) {
		return nil, io.EOF // it would be sent again after a while
	}
	response = append(response, body...)
	binary.BigEndian.PutUint32(response[2:], uint32(len(response)))
	return response, nil
}
