package tpm2

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// withConn uses a TPM directly.
func withConn(t testing.TB, swtpm *testenv.TPM, use func(*chip.Conn)) {
	t.Helper()
	c, err := new(Handler).connect(t.Context(), swtpm.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	use(c)
}

// persist puts a primary key at a handle.
func persist(t testing.TB, c *chip.Conn, template tpm2.TPMTPublic, handle tpm2.TPMHandle) error {
	t.Helper()
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(template),
	}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Flush(rsp.ObjectHandle)
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name},
		PersistentHandle: handle,
	}.Execute(c)
	return err
}

func TestSRKHandleOccupied(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	signing := chip.StorageTemplate("ecc", true)
	signing.ObjectAttributes.Decrypt, signing.ObjectAttributes.SignEncrypt = false, true
	signing.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{
		Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}})
	withConn(t, swtpm, func(c *chip.Conn) {
		if err := persist(t, c, signing, chip.HandleSRK); err != nil {
			t.Fatal(err)
		}
	})
	_, err := tryEnroll(t, handlerFor(t, swtpm.Device()), having())
	if err == nil || !strings.Contains(err.Error(), "0x81000001 is not a storage key") || !strings.Contains(err.Error(), "--tpm2-seal-key-handle=") {
		t.Errorf("%v", err)
	}
}

func TestFullTPM(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, swtpm, func(c *chip.Conn) {
		for i := range 100 {
			if err := persist(t, c, chip.StorageTemplate("ecc", true), chip.HandleSRK+0x100+tpm2.TPMHandle(i)); err != nil {
				return
			}
		}
		t.Fatal("a hundred keys did not fill the TPM")
	})
	swtpm.Mark()
	_, err := tryEnroll(t, handlerFor(t, swtpm.Device()), having())
	if err == nil || !strings.Contains(err.Error(), "no room for another persistent key") {
		t.Errorf("%v", err)
	}
	checkNothingLoaded(t, swtpm)
}

// checkNothingLoaded counts the handles of objects and sessions in the TPM.
func checkNothingLoaded(t testing.TB, swtpm *testenv.TPM) {
	t.Helper()
	withConn(t, swtpm, func(c *chip.Conn) {
		for _, kind := range []uint32{0x80000000, 0x02000000, 0x03000000} { // transient, loaded and saved sessions
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: kind, PropertyCount: 10}.Execute(c)
			if err != nil {
				t.Fatal(err)
			}
			if list, err := rsp.CapabilityData.Data.Handles(); err != nil || len(list.Handle) != 0 {
				t.Errorf("left in the TPM: %x, %v", list, err)
			}
		}
	})
}

func TestOwnerPassword(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, swtpm, func(c *chip.Conn) {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("owner")},
		}.Execute(c)
		if err != nil {
			t.Fatal(err)
		}
	})
	for compat, answers := range map[int][]string{252: nil, 262: nil} {
		req := having()
		req.Compat = compat
		_, err := tryEnroll(t, handlerFor(t, swtpm.Device()), req, answers...)
		hinted, ok := errors.AsType[interface {
			error
			Hint() string
		}](err)
		if err == nil || !strings.Contains(err.Error(), "owner hierarchy of the TPM has a password") || !ok || !strings.Contains(hinted.Hint(), "tpm2_changeauth") {
			t.Errorf("for systemd %d: %v", compat, err)
		}
	}
	checkNothingLoaded(t, swtpm)
}

func TestAllSlotsTaken(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	tok := asToken(0, enrolled(t, h).Token)
	conn, err := net.Dial("unix", swtpm.Socket())
	if err != nil {
		t.Fatal(err)
	}
	other := transport.FromReadWriter(conn)
	for range 3 {
		start := tpm2.StartAuthSession{TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull, SessionType: tpm2.TPMSEPolicy,
			NonceCaller: tpm2.TPM2BNonce{Buffer: make([]byte, 16)}, AuthHash: tpm2.TPMAlgSHA256, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull}}
		if _, err := start.Execute(other); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Close() // without flushing, as a program that crashed
	_, err = unlockToken(t, h, tok)
	hinted, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !errors.Is(err, tokens.ErrBusy) || !strings.Contains(err.Error(), "0x903") || !ok || !strings.Contains(hinted.Hint(), "/dev/tpmrm0") {
		t.Errorf("%v, want ErrBusy with an explanation of 0x903", err)
	}
}

// TestEveryRunFlushes looks into the TPM after success and after every failure.
func TestEveryRunFlushes(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	for _, f := range fixtures(t) {
		h := handlerFor(t, swtpm.Device())
		h.Signature, h.PCRLock = new("testdata/tpm2-pcr-signature.json"), new("testdata/pcrlock.json")
		if _, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		checkNothingLoaded(t, swtpm)
	}
	for _, i := range []int{7, 11} {
		swtpm.Extend(i, "sha256", make([]byte, 32))
	}
	for _, f := range fixtures(t) {
		h := handlerFor(t, swtpm.Device())
		h.Signature, h.PCRLock = new("testdata/tpm2-pcr-signature.json"), new("testdata/pcrlock.json")
		_, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...)
		if bound := !strings.Contains(f.name, "nopcr") && !strings.Contains(f.name, "pcrlock"); (err != nil) != bound {
			t.Errorf("%s with other PCRs: %v", f.name, err)
		}
		checkNothingLoaded(t, swtpm)
	}
}
