package tpm2

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// headerSize is that of every message: tag, length, code.
const headerSize = 10

// bus stands between a handler and a swtpm, sees everything and can change it.
type bus struct {
	path  string
	swtpm *testenv.TPM

	mu       sync.Mutex
	seen     bytes.Buffer // both directions
	messages int          // responses so far
	// change may alter a response; hangUp then closes the connection behind it.
	change func(n int, command, response []byte) (changed []byte, hangUp bool)
}

func tapBus(t testing.TB, swtpm *testenv.TPM) *bus {
	t.Helper()
	b := &bus{path: filepath.Join(swtpm.StateDir(), "bus"), swtpm: swtpm}
	l, err := net.Listen("unix", b.path)
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
			b.serve(conn)
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return b
}

func (b *bus) device() string { return "swtpm:path=" + b.path }

// serve carries the messages of one connection.
func (b *bus) serve(client net.Conn) {
	defer client.Close()
	swtpm, err := net.Dial("unix", b.swtpm.Socket())
	if err != nil {
		return
	}
	defer swtpm.Close()
	for {
		command, err := readMessage(client)
		if err != nil {
			return
		}
		if _, err := swtpm.Write(command); err != nil {
			return
		}
		response, err := readMessage(swtpm)
		if err != nil {
			return
		}
		b.mu.Lock()
		b.seen.Write(command)
		b.seen.Write(response)
		hangUp := false
		if b.change != nil {
			response, hangUp = b.change(b.messages, command, response)
		}
		b.messages++
		b.mu.Unlock()
		if _, err := client.Write(response); err != nil || hangUp {
			return
		}
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	m := make([]byte, headerSize)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	m = append(m, make([]byte, binary.BigEndian.Uint32(m[2:])-headerSize)...)
	_, err := io.ReadFull(r, m[headerSize:])
	return m, err
}

// find returns the names of the texts that went over the bus in any spelling.
func (b *bus) find(texts map[string][]byte) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for name, text := range texts {
		for spelling, form := range map[string][]byte{
			"raw": text, "base64": []byte(base64.StdEncoding.EncodeToString(text)), "hex": []byte(hex.EncodeToString(text)),
		} {
			if len(text) > 0 && bytes.Contains(b.seen.Bytes(), form) {
				found = append(found, name+" in "+spelling)
			}
		}
	}
	return found
}

func TestNoSecretOnTheBus(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	const pin = "correct horse battery"
	for name, mode := range map[string]PINMode{"no PIN": PINNone, "direct": PINDirect} {
		t.Run(name, func(t *testing.T) {
			b := tapBus(t, swtpm)
			h := handlerFor(t, b.device())
			h.PCRs, h.WithPIN = mustPCRs(t, "7+11"), mode
			var answers []string
			if mode != PINNone {
				answers = []string{pin}
			}
			e := enrolled(t, h, answers...)
			got, err := unlockToken(t, h, asToken(0, e.Token), answers...)
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := base64.StdEncoding.DecodeString(secret.UnsafeString(got.Passphrase))
			if err != nil {
				t.Fatal(err)
			}
			tok, err := parseToken(e.Token)
			if err != nil {
				t.Fatal(err)
			}
			keys, err := derivePIN(t.Context(), secret.Copy([]byte(pin)), tok.salt, tok.argon)
			if err != nil {
				t.Fatal(err)
			}
			secrets := map[string][]byte{"sealed secret": sealed, "passphrase": got.Passphrase.Bytes(), "PIN": []byte(pin), "auth value": keys.auth.Bytes()}
			if found := b.find(secrets); len(found) > 0 {
				t.Errorf("in clear on the bus: %v", found)
			}
		})
	}
}

// TestTapFindsWhatIsNotEncrypted is the control run: go-tpm's own calls without a
// session, on the same bus.
func TestTapFindsWhatIsNotEncrypted(t *testing.T) {
	t.Parallel()
	b := tapBus(t, fixtureTPM(t))
	c, err := chip.Open(t.Context(), b.device(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	public, err := c.ReadPublic(chip.HandleSRK)
	if err != nil {
		t.Fatal(err)
	}
	srk := tpm2.AuthHandle{Handle: chip.HandleSRK, Name: tpm2.TPM2BName{Buffer: chip.ObjectName(public)}, Auth: tpm2.PasswordAuth(nil)}
	sealed, auth := []byte("a secret that nobody encrypts..."), []byte("password")
	object := tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{})}
	made, err := tpm2.Create{ParentHandle: srk, InPublic: tpm2.New2B(object),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: auth}, Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: sealed}),
		}}}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.find(map[string][]byte{"secret": sealed})) != 1 || len(b.find(map[string][]byte{"auth": auth})) != 1 {
		t.Error("the tap does not see what Create carried in clear")
	}
	b.seen.Reset()
	loaded, err := tpm2.Load{ParentHandle: srk, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	rsp, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth(auth)}}.Execute(c)
	if err != nil || !bytes.Equal(rsp.OutData.Buffer, sealed) {
		t.Fatalf("unseal: %v", err)
	}
	if len(b.find(map[string][]byte{"secret": sealed})) != 1 {
		t.Error("the tap does not see what Unseal gave in clear")
	}
}

// TestFlippedBitFailsClosed changes every bit of every response up to and
// including that of Unseal, one at a time. What comes later carries nothing.
func TestFlippedBitFailsClosed(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	b := tapBus(t, swtpm)
	f := fixtureNamed(t, "systemd257-tpm2-pcr")
	unlock := func() error {
		b.messages = 0
		got, err := unlockToken(t, handlerFor(t, b.device()), asToken(0, f.Token))
		if err == nil && secret.UnsafeString(got.Passphrase) != f.Passphrase {
			return errors.New("a WRONG passphrase came out")
		}
		return err
	}
	var sizes []int // of the responses
	b.change = func(n int, command, response []byte) ([]byte, bool) {
		if n == len(sizes) && (n == 0 || tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != tpm2.TPMCCFlushContext) {
			sizes = append(sizes, len(response))
		}
		return response, false
	}
	if err := unlock(); err != nil || len(sizes) != 4 {
		t.Fatalf("undisturbed: %v, responses %v", err, sizes)
	}
	step := 1
	if testing.Short() {
		step = 13
	}
	leaks := 0
	for n, size := range sizes {
		for bit := 0; bit < 8*size; bit += step {
			b.change = func(i int, _, response []byte) ([]byte, bool) {
				if i == n {
					response[bit/8] ^= 1 << (bit % 8)
				}
				// A longer length makes the reader wait; let it see the end instead.
				return response, i == n && bit/8 >= 2 && bit/8 < 6
			}
			if err := unlock(); err == nil || err.Error() == "a WRONG passphrase came out" {
				t.Errorf("response %d, byte %d, bit %d flipped: %v, want an error", n, bit/8, bit%8, err)
			}
			if n < 2 && bit/8 < headerSize+4 || bit/8 < headerSize {
				// Nobody could know what to flush. Three slots bear two of these.
				if leaks++; leaks%2 == 0 {
					swtpm.Reset()
				}
			}
		}
	}
	b.change = nil
	swtpm.Reset()
	if err := unlock(); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestDeviceVanishes hangs up after every response in turn.
func TestDeviceVanishes(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	b := tapBus(t, swtpm)
	f := fixtureNamed(t, "systemd257-tpm2-pin")
	for n := range 4 {
		b.messages = 0
		b.change = func(i int, _, response []byte) ([]byte, bool) { return response, i == n }
		var answers []string
		if n == 3 { // all but Unseal went well
			answers = []string{f.PIN}
		}
		_, err := unlockToken(t, handlerFor(t, b.device()), asToken(0, f.Token), answers...)
		if !errors.Is(err, tokens.ErrNoDevice) {
			t.Errorf("gone after response %d: %v, want ErrNoDevice", n, err)
		}
		swtpm.Reset() // a connection that breaks leaves objects in a TPM without resource manager
	}
}
