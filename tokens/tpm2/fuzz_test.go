package tpm2

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/chip"
)

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
	public := list[0].Parent.Public
	success := func(body []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{0}, uint16(len(body))), body...)
	}
	handle := []byte{0x80, 0, 0, 0}
	load := success(append(handle, sized(chip.ObjectName(list[0].blobs[0].Public))...))
	session := success(append([]byte{3, 0, 0, 0}, sized(make([]byte, 16))...))
	for operation := range byte(16) {
		f.Add(operation, bytes.Join([][]byte{load, session, success(nil), success(nil)}, nil))
		f.Add(operation, success(sized(public)))
		f.Add(operation, success([]byte{0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0}))
	}
	f.Fuzz(func(t *testing.T, operation byte, answers []byte) {
		h := &Handler{Paths: Paths{Root: "/nonexistent"}}
		c := chip.New(t.Context(), &scriptedLink{answers})
		o := &opener{h: h, c: c, knownPIN: secret.Copy([]byte("4711"))}
		defer o.knownPIN.Wipe()
		switch int(operation) {
		case 0, 1, 2, 3, 4, 5:
			if _, err := o.open(list[operation]); err == nil {
				t.Error("a key came out of noise")
			}
		case 6:
			_, _ = c.Lockout()
		case 7:
			_, _ = c.Product()
		case 8:
			_, _ = c.Banks()
		case 9:
			_, _ = c.ReadPCRs(chip.BankSHA256, 1<<24-1)
		case 10:
			_, _ = c.UsedBanks([]chip.Bank{chip.BankSHA256, chip.BankSHA1})
		case 11:
			_, _ = c.MakeSRK()
		case 12:
			if _, err := c.Seal(list[0].Parent, chip.Object{Data: o.knownPIN}); err == nil {
				t.Error("noise was taken for a sealed object")
			}
		case 13:
			if err := c.CheckAuth(list[0].Parent, tpm2.NamedHandle{Handle: 0x80000000}, o.knownPIN); err == nil {
				t.Error("noise was taken for a right PIN")
			}
		case 14:
			e := h.newEnrollment(&settings{req: having(), compat: newestSystemd, pcrs: chip.Selection{Set: 1 << 7}}, c, nil)
			_ = e.prepare()
		}
		c.Close()
	})
}

// sized is a TPM2B.
func sized(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// resent are the codes after which a command is sent again.
var resent = []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate}

// scriptedLink is a TPM whose answers were written down: for each a byte with its
// kind, two with the length of its body, and the body.
type scriptedLink struct{ answers []byte }

func (*scriptedLink) Close() error { return nil }

func (l *scriptedLink) Exchange(_ context.Context, command []byte) ([]byte, error) {
	if len(l.answers) < 3 {
		return nil, io.EOF
	}
	kind, n := l.answers[0], int(binary.BigEndian.Uint16(l.answers[1:]))
	body := l.answers[3:][:min(n, len(l.answers)-3, 4096-headerSize)]
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
	if slices.Contains(resent, tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))) {
		return nil, io.EOF // it would be sent again after a while
	}
	response = append(response, body...)
	binary.BigEndian.PutUint32(response[2:], uint32(len(response)))
	return response, nil
}
