package tpm2

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// peer is a systemd to exchange volumes with.
type peer struct {
	name    string
	dir     string // for files that both sides see
	command func(env []string, name string, args ...string) *exec.Cmd
	inside  func(path string) string // how the peer sees a path below dir
	compat  int
	attach  string // path of systemd-cryptsetup
}

func systemd252(t testing.TB) *peer {
	testenv.Need(t, "systemd-cryptenroll", "cryptsetup")
	return &peer{name: "systemd 252", dir: t.TempDir(), compat: 252, inside: func(path string) string { return path }, attach: "/lib/systemd/systemd-cryptsetup",
		command: func(env []string, name string, args ...string) *exec.Cmd {
			cmd := exec.Command(name, args...)
			cmd.Env = append(os.Environ(), env...)
			return cmd
		}}
}

func systemd257(t testing.TB) *peer {
	testenv.Need(t, "cryptsetup")
	tree := testenv.Systemd257(t)
	return &peer{name: "systemd 257", dir: tree.Dir(), compat: 257, inside: tree.Inside, attach: "/usr/bin/systemd-cryptsetup", command: tree.Command}
}

// volume formats a small volume with the passphrase hunter2.
func (p *peer) volume(t testing.TB) string {
	t.Helper()
	f, err := os.CreateTemp(p.dir, "v*.img")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(20 << 20); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", append([]string{"luksFormat", "-q", "--type", "luks2", f.Name(), p.file(t, "hunter2")}, cheapKDF...)...)
	return f.Name()
}

var cheapKDF = []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}

// file writes a file that the peer sees too.
func (p *peer) file(t testing.TB, content string) string {
	t.Helper()
	f, err := os.CreateTemp(p.dir, "f*")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// copied is a file of testdata where the peer sees it.
func (p *peer) copied(t testing.TB, name string) string {
	t.Helper()
	return p.file(t, string(readTestFile(t, filepath.Join("testdata", name))))
}

// put adds an enrolment of ours to a volume, in keyslot 1, with cryptsetup.
func put(t testing.TB, p *peer, image string, e *tokens.Enrollment) {
	t.Helper()
	token := strings.Replace(string(e.Token), `"keyslots":[]`, `"keyslots":["1"]`, 1)
	testenv.Run(t, "cryptsetup", append([]string{"luksAddKey", "--key-slot", "1", "--key-file", p.file(t, "hunter2"), image, p.file(t, secret.UnsafeString(e.Passphrase))}, cheapKDF...)...)
	// The peer's cryptsetup, because older ones refuse the array of two shards.
	out, err := p.command(nil, "cryptsetup", "token", "import", "--json-file", p.inside(p.file(t, token)), p.inside(image)).CombinedOutput()
	if err != nil {
		t.Fatalf("importing the token: %v\n%s", err, out)
	}
}

// unseals has systemd-cryptsetup unseal the key. There is no device-mapper here:
// after that it fails, which is why its log has to say how far it came.
func (p *peer) unseals(t testing.TB, swtpm *testenv.TPM, image, pin string, options ...string) error {
	t.Helper()
	options = append(options, "tpm2-device="+strings.ReplaceAll(swtpm.Device(), ",", `\,`), "headless=1", "tries=1", "token-timeout=1")
	cmd := p.command([]string{"PIN=" + pin, "SYSTEMD_LOG_LEVEL=debug", "SYSTEMD_CRYPTSETUP_USE_TOKEN_MODULE=0"}, p.attach, "attach", "luksmith-test",
		p.inside(image), "-", strings.Join(options, ","))
	out, err := outputWithin(t, cmd)
	if strings.Contains(out, "Completed TPM2 key unsealing") && strings.Contains(out, "Failed to activate with TPM2 acquired key") {
		return nil
	}
	return fmt.Errorf("%v\n%s", err, out)
}

// opens has systemd-cryptenroll 257 unlock the volume with the TPM: it adds a
// recovery key.
func (p *peer) opens(t testing.TB, swtpm *testenv.TPM, image, pin string) error {
	t.Helper()
	out, err := outputWithin(t, p.command([]string{"PIN=" + pin}, "systemd-cryptenroll", "--unlock-tpm2-device="+swtpm.Device(), "--recovery-key", p.inside(image)))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// outputWithin runs a program for at most a minute.
func outputWithin(t testing.TB, cmd *exec.Cmd) (string, error) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	err := cmd.Wait()
	return out.String(), err
}

// unlockVolume opens a volume with all its TPM2 tokens and checks that the volume
// key comes out.
func unlockVolume(t testing.TB, h *Handler, image string, answers ...string) error {
	t.Helper()
	d, err := luks2.Open(image, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	header, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req := &tokens.UnlockRequest{Tokens: header.Tokens, Volume: tokens.Volume{UUID: header.UUID, Device: image},
		Opens: func(ctx context.Context, tok luks2.Token, passphrase secret.Secret) error {
			vk, err := d.OpenKeyslot(ctx, tok.Keyslots[0], passphrase)
			if err == nil {
				vk.Wipe()
			}
			return err
		}}
	got, err := h.Unlock(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if err == nil {
		got.Passphrase.Wipe()
	}
	return err
}

// form is a way to enrol, in both languages.
type form struct {
	name    string
	options []string // of systemd-cryptenroll
	set     func(*Handler, *peer, testing.TB)
	pin     string
	attach  []string // options for systemd-cryptsetup
	since   int
}

func forms(t testing.TB, p *peer) []form {
	key, sig, lock := p.copied(t, "tpm2-pcr-public-key.pem"), p.copied(t, "tpm2-pcr-signature.json"), p.copied(t, "pcrlock.json")
	pcrs := func(text string) func(*Handler, *peer, testing.TB) {
		return func(h *Handler, _ *peer, t testing.TB) { h.PCRs = mustPCRs(t, text) }
	}
	signed := func(h *Handler, _ *peer, t testing.TB) {
		h.PCRs = mustPCRs(t, "7")
		h.PublicKey, h.Signature = new(key), new(sig)
	}
	list := []form{
		{name: "PCR", options: []string{"--tpm2-pcrs=7+11"}, set: pcrs("7+11")},
		{name: "no PCR", options: []string{"--tpm2-pcrs="}, set: pcrs("")},
		{name: "SHA-1", options: []string{"--tpm2-pcrs=7:sha1"}, set: pcrs("7:sha1"), since: 255},
		{name: "SHA-512", options: []string{"--tpm2-pcrs=7:sha512"}, set: pcrs("7:sha512"), since: 255},
		{name: "RSA key", options: []string{"--tpm2-pcrs=", "--tpm2-seal-key-handle=0x81000002"}, since: 255, set: func(h *Handler, _ *peer, _ testing.TB) {
			h.ParentHandle = 0x81000002
		}},
		{name: "PIN", options: []string{"--tpm2-pcrs=7", "--tpm2-with-pin=yes"}, pin: "4711", set: func(h *Handler, _ *peer, t testing.TB) {
			h.PCRs, h.WithPIN = mustPCRs(t, "7"), PINYes
		}},
		{name: "signed", options: []string{"--tpm2-pcrs=7", "--tpm2-public-key=" + p.inside(key), "--tpm2-public-key-pcrs=11", "--tpm2-signature=" + p.inside(sig)},
			set: signed, attach: []string{"tpm2-signature=" + p.inside(sig)}},
		{name: "signed with PIN", options: []string{"--tpm2-pcrs=7", "--tpm2-with-pin=yes", "--tpm2-public-key=" + p.inside(key), "--tpm2-public-key-pcrs=11",
			"--tpm2-signature=" + p.inside(sig)}, pin: "4711", attach: []string{"tpm2-signature=" + p.inside(sig)}, set: func(h *Handler, p *peer, t testing.TB) {
			signed(h, p, t)
			h.WithPIN = PINYes
		}},
		{name: "pcrlock", options: []string{"--tpm2-pcrs=", "--tpm2-pcrlock=" + p.inside(lock)}, since: 257, attach: []string{"tpm2-pcrlock=" + p.inside(lock)},
			set: func(h *Handler, _ *peer, _ testing.TB) { h.PCRLock = new(lock) }},
		{name: "signed and pcrlock", options: []string{"--tpm2-pcrs=7", "--tpm2-public-key=" + p.inside(key), "--tpm2-public-key-pcrs=11",
			"--tpm2-signature=" + p.inside(sig), "--tpm2-pcrlock=" + p.inside(lock)}, since: 257,
			attach: []string{"tpm2-signature=" + p.inside(sig), "tpm2-pcrlock=" + p.inside(lock)}, set: func(h *Handler, p *peer, t testing.TB) {
				signed(h, p, t)
				h.PCRLock = new(lock)
			}},
	}
	var fit []form
	for _, f := range list {
		if f.since <= p.compat {
			fit = append(fit, f)
		}
	}
	return fit
}

// exchange enrols every form on both sides and opens it on the other.
func exchange(t *testing.T, p *peer) {
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{State: "testdata", TCP: true})
	withConn(t, swtpm, func(c *chip.Conn) {
		if err := persist(t, c, chip.StorageTemplate("rsa", true), 0x81000002); err != nil {
			t.Fatal(err)
		}
	})
	for _, f := range forms(t, p) {
		handler := func(t testing.TB) *Handler {
			h := handlerFor(t, swtpm.Device())
			f.set(h, p, t)
			return h
		}
		var answers []string
		if f.pin != "" {
			answers = []string{f.pin}
		}
		t.Run("ours "+f.name, func(t *testing.T) {
			defer swtpm.Reset() // systemd 252 leaves sessions behind when it fails
			image := p.volume(t)
			e, err := handler(t).Enroll(t.Context(), &tokens.EnrollRequest{Compat: p.compat}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
			if err != nil {
				t.Fatal(err)
			}
			defer e.Passphrase.Wipe()
			put(t, p, image, e)
			if err := unlockVolume(t, handler(t), image, answers...); err != nil {
				t.Errorf("we do not open it: %v", err)
			}
			if err := p.unseals(t, swtpm, image, f.pin, f.attach...); err != nil {
				t.Errorf("%s does not unseal it: %v", p.name, err)
			}
			if p.compat >= 256 && f.attach == nil {
				if err := p.opens(t, swtpm, image, f.pin); err != nil {
					t.Errorf("%s does not open it: %v", p.name, err)
				}
			}
		})
		t.Run("theirs "+f.name, func(t *testing.T) {
			defer swtpm.Reset()
			image := p.volume(t)
			args := append([]string{"--tpm2-device=" + swtpm.Device(), p.inside(image)}, f.options...)
			out, err := outputWithin(t, p.command([]string{"PASSWORD=hunter2", "NEWPIN=" + f.pin}, "systemd-cryptenroll", args...))
			if err != nil {
				t.Fatalf("%s does not enrol: %v\n%s", p.name, err, out)
			}
			if err := unlockVolume(t, handler(t), image, answers...); err != nil {
				t.Errorf("we do not unlock what %s enrolled: %v", p.name, err)
			}
		})
	}
}

func TestExchangeWithSystemd252(t *testing.T) {
	t.Parallel()
	exchange(t, systemd252(t))
}
func TestExchangeWithSystemd257(t *testing.T) { exchange(t, systemd257(t)) }
