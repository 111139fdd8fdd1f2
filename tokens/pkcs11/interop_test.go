package pkcs11

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

// host runs programs of this system or of the one with systemd 257.
type host struct {
	tree *testenv.Tree // nil for this system
	env  []string      // of the object store
	dir  string        // for volumes
}

// here is this system with a store, there the one with systemd 257 and a copy.
func here(t *testing.T, store *testenv.SoftHSM) *host {
	t.Helper()
	testenv.Need(t, "cryptsetup", "systemd-cryptenroll")
	return &host{env: store.Env, dir: t.TempDir()}
}

func there(t *testing.T, store *testenv.SoftHSM) *host {
	t.Helper()
	tree := testenv.Systemd257(t)
	return &host{tree: tree, env: store.Inside(t, tree), dir: tree.Dir()}
}

// run runs a program with input and returns what it prints. image is appended to
// the arguments as the program sees it.
func (h *host) run(t *testing.T, input string, env []string, image, name string, args ...string) (string, error) {
	t.Helper()
	env = append(env, h.env...)
	cmd := exec.Command(name, append(args, image)...)
	cmd.Env = append(os.Environ(), env...)
	if h.tree != nil {
		cmd = h.tree.Command(env, name, append(args, h.tree.Inside(image))...)
	}
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *host) must(t *testing.T, input string, env []string, image, name string, args ...string) string {
	t.Helper()
	out, err := h.run(t, input, env, image, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// volume makes a volume that luks2test.Passphrase opens.
func (h *host) volume(t *testing.T) string {
	t.Helper()
	image := filepath.Join(h.dir, "volume.img")
	testenv.Run(t, "cp", "--sparse=always", luks2test.New(t).Path, image)
	return image
}

// add writes an enrolment into a volume in one transaction, as cryptenroll does,
// and returns the number of the keyslot. The token gets the number 0.
func (h *host) add(t *testing.T, image string, e *tokens.Enrollment) (slot int) {
	t.Helper()
	device, err := luks2.Open(image, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	key, err := device.OpenKeyslot(t.Context(), luks2.AnySlot, secretOf(t, luks2test.Passphrase))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	err = device.Update(t.Context(), func(tx *luks2.Tx) error {
		if slot, err = tx.AddKeyslot(key, e.Passphrase, e.KDF); err != nil {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Keyslots: []int{slot}, Raw: e.Token})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// TestSystemdOpensWhatWeEnrol goes through systemd's own plug-in for libcryptsetup,
// which is the code that unlocks at boot.
func TestSystemdOpensWhatWeEnroll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		where  func(*testing.T, *testenv.SoftHSM) *host
		uri    string
		compat int
	}{
		{"252 RSA 1.5", here, "pkcs11:object=rsa", 252},
		{"257 RSA 1.5", there, "pkcs11:token=luksmith;id=%01;type=cert", 257},
		{"257 EC", there, "pkcs11:object=ec", 257},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := fixtureStore(t)
			e := enroll(t, &Handler{Connect: connect(t, store.Env...), TokenURI: c.uri}, c.compat, fixtureToken.PIN)
			h := c.where(t, store)
			image := h.volume(t)
			h.add(t, image, e)
			out := h.must(t, fixtureToken.PIN, nil, image, "cryptsetup", "open", "--test-passphrase", "--token-only", "--token-id", "0", "--verbose")
			if !strings.Contains(out, "Key slot 1 unlocked") {
				t.Errorf("cryptsetup says:\n%s", out)
			}
			if out := h.must(t, "", nil, image, "systemd-cryptenroll"); !strings.Contains(out, "pkcs11") || strings.Contains(out, "conflict") {
				t.Errorf("systemd-cryptenroll lists:\n%s", out)
			}
			r, err := parse(e.Token)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.uri, "ec") { // opensc expects the id 01
				return
			}
			h.must(t, opensc(t, store, fixtureToken, r), nil, image, "cryptsetup", "open", "--test-passphrase", "--key-slot", "1", "--disable-external-tokens", "--key-file", "-")
		})
	}
}

// TestWeOpenWhatSystemdEnrols has the installed systemd and 257 enrol.
func TestWeOpenWhatSystemdEnrolls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		where func(*testing.T, *testenv.SoftHSM) *host
		uri   string
	}{
		{"252 RSA", here, "pkcs11:token=luksmith;object=rsa"},
		{"252 RSA with type=cert", here, "pkcs11:token=luksmith;object=rsa;type=cert"},
		{"257 RSA", there, "pkcs11:token=luksmith;object=rsa;type=cert"},
		{"257 EC", there, "pkcs11:token=luksmith;object=ec;type=public"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := fixtureStore(t)
			h := c.where(t, store)
			image := h.volume(t)
			out := h.must(t, "", []string{"PASSWORD=" + luks2test.Passphrase, "PIN=" + fixtureToken.PIN}, image, "systemd-cryptenroll", "--pkcs11-token-uri="+c.uri)
			if !strings.Contains(out, "New PKCS#11 token enrolled as key slot 1") {
				t.Fatalf("systemd-cryptenroll says:\n%s", out)
			}
			passphrase := unlockImage(t, &Handler{Connect: connect(t, store.Env...)}, image)
			h.must(t, passphrase, nil, image, "cryptsetup", "open", "--test-passphrase", "--key-slot", "1", "--disable-external-tokens", "--key-file", "-")
		})
	}
}

// unlockImage unlocks with the tokens that are in the header.
func unlockImage(t *testing.T, h *Handler, image string) string {
	t.Helper()
	list := tokensOf(t, image)
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: list}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Passphrase.Wipe()
	return string(got.Passphrase.Bytes())
}

func tokensOf(t *testing.T, image string) []luks2.Token {
	t.Helper()
	device, err := luks2.Open(image, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	header, err := device.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return header.Tokens
}

// TestPlugInsTakeLabels: a label of any kind must not make systemd refuse the
// token, whose JSON it reads with another parser.
func TestPlugInsTakeLabels(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	store := fixtureStore(t)
	handler := &Handler{Connect: connect(t, store.Env...), TokenURI: "pkcs11:object=rsa"}
	req := &tokens.EnrollRequest{Compat: 252, Label: "Büro \"3\" \\ <&>\u2028\x01 +:@"}
	e, err := handler.Enroll(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	h := here(t, store)
	image := h.volume(t)
	h.add(t, image, e)
	h.must(t, fixtureToken.PIN, nil, image, "cryptsetup", "open", "--test-passphrase", "--token-only", "--token-id", "0")
	exported := h.must(t, "", nil, image, "cryptsetup", "token", "export", "--token-id", "0")
	if !json.Valid([]byte(exported)) || tokens.Label(json.RawMessage(exported)) != req.Label {
		t.Errorf("libcryptsetup kept %s", exported)
	}
	if bytes.Contains(e.Token, []byte("\n")) {
		t.Error("the token has several lines")
	}
}
