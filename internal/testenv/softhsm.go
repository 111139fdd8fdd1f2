package testenv

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// SoftHSM is an object store of SoftHSM 2 that belongs to one test: a PKCS#11
// module made of software, whose tokens are folders.
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
	dir := t.TempDir()
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
	store := filepath.Join(tree.Dir(), "tokens")
	if err := os.CopyFS(store, os.DirFS(s.store)); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(tree.Dir(), "softhsm2.conf")
	writeConf(t, conf, tree.Inside(store))
	return []string{"SOFTHSM2_CONF=" + tree.Inside(conf)}
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
	// NoCertificate leaves out the certificate, NoPublicKey the public key object.
	NoCertificate, NoPublicKey bool
}

// AddKey imports a key pair with a self-signed certificate.
func (s *SoftHSM) AddKey(t testing.TB, token Token, key Key) {
	t.Helper()
	dir := t.TempDir()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key.Private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--import", file, "--token", token.Label, "--pin", token.PIN, "--id", key.ID, "--label", key.Label, "--force"}
	if key.NoPublicKey {
		args = append(args, "--no-public-key")
	}
	s.run(t, "softhsm2-util", args...)
	if key.NoCertificate {
		return
	}
	file = filepath.Join(dir, "cert.der")
	if err := os.WriteFile(file, certificate(t, key), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Tool(t, token, "--login", "--write-object", file, "--type", "cert", "--id", key.ID, "--label", key.Label)
}

func certificate(t testing.TB, key Key) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: key.Label},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Private.Public(), key.Private)
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
