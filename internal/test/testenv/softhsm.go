package testenv

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// SoftHSM is an object store of SoftHSM 2 that belongs to one test: a PKCS#11
// module made of software, whose tokens are folders. Every login rewrites a file
// there, so that another process sees no token for a moment: let only one program
// use a store at a time, with a store for each of several parallel tests.
type SoftHSM struct {
	// Module is the path of the PKCS#11 module. p11-kit's default configuration
	// names it, too.
	Module string
	// Env is what a program that uses the store needs in its environment:
	// SOFTHSM2_CONF.
	Env   []string
	store string
}

// softHSMModules are the places of the module on distributions.
var softHSMModules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so",
	"/usr/lib/pkcs11/libsofthsm2.so", "/usr/lib/libsofthsm2.so"}

// NewSoftHSM makes a store without tokens.
func NewSoftHSM(t testing.TB) *SoftHSM {
	t.Helper()
	Need(t, "softhsm2-util", "pkcs11-tool")
	dir, err := os.MkdirTemp("", "softhsm.") // its own name: in that of a test may be an equals sign, which ends a word of the configuration
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &SoftHSM{store: filepath.Join(dir, "tokens"), Env: []string{"SOFTHSM2_CONF=" + filepath.Join(dir, "softhsm2.conf")}}
	for _, path := range softHSMModules {
		if _, err := os.Stat(path); err == nil {
			s.Module = path
		}
	}
	if s.Module == "" {
		Missing(t, "libsofthsm2.so", "sh .ci/install-deps installs it")
	}
	if err := os.Mkdir(s.store, 0o700); err != nil {
		t.Fatal(err)
	}
	writeConf(t, filepath.Join(dir, "softhsm2.conf"), s.store)
	return s
}

func writeConf(t testing.TB, path, store string) {
	t.Helper()
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", store)
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Spy is OpenSC's PKCS#11 module that passes calls on and notes them: the module in
// $PKCS11SPY, the file in $PKCS11SPY_OUTPUT.
func Spy(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib*/*/pkcs11-spy.so", "/usr/lib*/pkcs11-spy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	Missing(t, "pkcs11-spy.so", "sh .ci/install-deps installs it (opensc)")
	return ""
}

// Restore copies the tokens of another store, such as one in testdata, into this
// one.
func (s *SoftHSM) Restore(t testing.TB, from string) {
	t.Helper()
	if err := os.CopyFS(s.store, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	makeWritable(t, s.store)
}

// makeWritable undoes the permissions of a read-only original.
func makeWritable(t testing.TB, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o600|info.Mode().Perm()>>2&0o100)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Inside copies the store into the tree of another system and returns the
// environment for programs of that tree.
func (s *SoftHSM) Inside(t testing.TB, tree *Tree) []string {
	t.Helper()
	return s.CopyTo(t, tree.Dir(), tree.Inside(tree.Dir()))
}

// CopyTo copies the store into a folder and returns the environment for programs
// that see the folder as another one.
func (s *SoftHSM) CopyTo(t testing.TB, folder, seenAs string) []string {
	t.Helper()
	if err := os.CopyFS(filepath.Join(folder, "tokens"), os.DirFS(s.store)); err != nil {
		t.Fatal(err)
	}
	writeConf(t, filepath.Join(folder, "softhsm2.conf"), filepath.Join(seenAs, "tokens"))
	return []string{"SOFTHSM2_CONF=" + filepath.Join(seenAs, "softhsm2.conf")}
}

// Token is a new token for SoftHSM.
type Token struct {
	Label, PIN string
}

// AddToken makes an empty token.
func (s *SoftHSM) AddToken(t testing.TB, token Token) {
	t.Helper()
	s.run(t, "softhsm2-util", "--init-token", "--free", "--label", token.Label, "--pin", token.PIN, "--so-pin", "12345678")
}

// Key is a key pair to put on a token.
type Key struct {
	ID      string // CKA_ID in hex
	Label   string
	Private crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
	// Parts to leave out.
	NoCertificate, NoPublicKey, NoPrivateKey bool
}

// AddKey imports a key pair that may decrypt (RSA) or derive (EC), with a public key
// object and a self-signed certificate.
func (s *SoftHSM) AddKey(t testing.TB, token Token, key Key) {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(key.Private)
	if err != nil {
		t.Fatal(err)
	}
	usage := "--usage-decrypt"
	if _, ec := key.Private.(*ecdsa.PrivateKey); ec {
		usage = "--usage-derive"
	}
	if !key.NoPrivateKey {
		s.write(t, token, key, "privkey", private, usage)
	}
	if !key.NoPublicKey {
		public, err := x509.MarshalPKIXPublicKey(key.Private.Public())
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, token, key, "pubkey", public, usage)
	}
	if !key.NoCertificate {
		s.write(t, token, key, "cert", SelfSigned(t, key.Label, key.Private))
	}
}

// write puts an object on a token.
func (s *SoftHSM) write(t testing.TB, token Token, key Key, kind string, der []byte, more ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), kind)
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--login", "--write-object", file, "--type", kind, "--id", key.ID, "--label", key.Label}
	s.Tool(t, token, append(args, more...)...)
}

// SelfSigned is a certificate for a key, in DER.
func SelfSigned(t testing.TB, name string, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Tool runs OpenSC's pkcs11-tool on a token and returns what it prints.
func (s *SoftHSM) Tool(t testing.TB, token Token, args ...string) string {
	t.Helper()
	return s.run(t, "pkcs11-tool", append([]string{"--module", s.Module, "--token-label", token.Label, "--pin", token.PIN}, args...)...)
}

func (s *SoftHSM) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), s.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}
