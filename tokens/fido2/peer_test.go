package fido2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// The tests with real systemd run on this machine: its libfido2 takes a terminal
// for a key, given by path.

const password = "password"

// newImage makes a volume whose slot 0 opens with the password.
func newImage(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "volume")
	p := secret.Copy([]byte(password))
	defer p.Wipe()
	d, err := luks2.Format(t.Context(), path, &luks2.FormatOptions{Passphrase: p, KDF: luks2.MinimalKDF, CreateSize: 20 << 20})
	if err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
	return path
}

func openImage(t *testing.T, path string) *luks2.Device {
	t.Helper()
	d, err := luks2.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// readToken returns the systemd-fido2 token of a volume.
func readToken(t *testing.T, image string) luks2.Token {
	t.Helper()
	h, err := openImage(t, image).Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range h.TokensOf(1) {
		if tok.Type == Type {
			return tok
		}
	}
	t.Fatal("slot 1 has no FIDO2 token")
	return luks2.Token{}
}

// opensSlot1 tries a passphrase on the keyslot of a token.
func opensSlot1(t *testing.T, image string) func(context.Context, luks2.Token, secret.Secret) error {
	d := openImage(t, image)
	return func(ctx context.Context, _ luks2.Token, p secret.Secret) error {
		vk, err := d.OpenKeyslot(ctx, 1, p)
		if errors.Is(err, luks2.ErrNoKey) {
			return fmt.Errorf("%w: %w", tokens.ErrWrongKey, err)
		}
		if err == nil {
			vk.Wipe()
		}
		return err
	}
}

// addToVolume writes our enrolment in one transaction, as cryptenroll does.
func addToVolume(t *testing.T, image string, e *tokens.Enrollment) {
	t.Helper()
	d := openImage(t, image)
	p := secret.Copy([]byte(password))
	defer p.Wipe()
	vk, err := d.OpenKeyslot(t.Context(), 0, p)
	if err != nil {
		t.Fatal(err)
	}
	defer vk.Wipe()
	err = d.Update(t.Context(), func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(vk, e.Passphrase, e.KDF)
		if err != nil {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Type: Type, Keyslots: []int{slot}, Raw: e.Token})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// firmwares are the makes of keys against which the peers run.
var firmwares = map[string]fidotest.Firmware{"A": fidotest.CTAP21, "B": fidotest.CTAP20}

// choices are what is asked of the peers and of us.
var choices = []struct {
	name             string
	clientPIN, touch bool
}{{"touch", false, true}, {"PIN and touch", true, true}, {"PIN", true, false}}

func yesNoFlag(name string, b bool) string { return "--fido2-with-" + name + "=" + yesNo(b) }

// onTerminal runs a command on a terminal of its own and types the PIN when it is
// asked for.
func onTerminal(t *testing.T, cmd *exec.Cmd, answer string) {
	t.Helper()
	f, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	var seen strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			break
		}
		if strings.Contains(seen.String(), "PIN") && answer != "" {
			_, _ = f.WriteString(answer + "\n")
			answer = ""
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, seen.String())
	}
}

// unlocksTheirs unlocks what a peer enrolled, with the same key.
func unlocksTheirs(t *testing.T, image, path string) {
	t.Helper()
	tok := readToken(t, image)
	p, err := parse(tok)
	if err != nil {
		t.Fatal(err)
	}
	var answers []string
	if p.pin == yes {
		answers = []string{pin}
	}
	h := &Handler{Dial: fidotest.Dial(t), UnlockDevice: path}
	if _, err := unlock(t, h, tokentest.NewUI(t, tokentest.Typed(answers...)...), opensSlot1(t, image), tok); err != nil {
		t.Errorf("%v\ntoken %s", err, tok.Raw)
	}
}

func TestUnlocksWhatSystemd252Enrolled(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.Need(t, "systemd-cryptenroll")
	for name, firmware := range firmwares {
		for _, c := range choices {
			t.Run(name+" "+c.name, func(t *testing.T) {
				t.Parallel()
				k := fidotest.New(fidotest.Config{Firmware: firmware, PIN: pin})
				path, err := k.Terminal(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				image := newImage(t, t.TempDir())
				cmd := exec.Command("systemd-cryptenroll", "--fido2-device="+path, yesNoFlag("client-pin", c.clientPIN),
					yesNoFlag("user-presence", c.touch), image)
				cmd.Env = append(os.Environ(), "PASSWORD="+password)
				onTerminal(t, cmd, pin)
				unlocksTheirs(t, image, path)
			})
		}
	}
}

// in257 prepares a program of Debian 13 that sees this machine's terminals.
func in257(tree *testenv.Tree, env []string, args ...string) *exec.Cmd {
	script := `mount --bind /dev/pts "$0/dev/pts" && chroot "$0" "$@"; exit $?` // a leader of the session must not open the key
	cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, tree.Root}, args...)...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// credentials is a folder with the PIN for systemd 257.
func credentials(t *testing.T, tree *testenv.Tree) string {
	t.Helper()
	dir := filepath.Join(tree.Dir(), "credentials")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cryptenroll.fido2-pin"), []byte(pin), 0o600); err != nil {
		t.Fatal(err)
	}
	return "CREDENTIALS_DIRECTORY=" + tree.Inside(dir)
}

func TestUnlocksWhatSystemd257Enrolled(t *testing.T) {
	testenv.Need(t, "unshare")
	for name, firmware := range firmwares {
		for _, c := range choices {
			t.Run(name+" "+c.name, func(t *testing.T) {
				t.Parallel()
				tree := testenv.Systemd257(t)
				k := fidotest.New(fidotest.Config{Firmware: firmware, PIN: pin})
				path, err := k.Terminal(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				image := newImage(t, tree.Dir())
				run(t, in257(tree, []string{"PASSWORD=" + password, credentials(t, tree)}, "systemd-cryptenroll", "--fido2-device="+path,
					yesNoFlag("client-pin", c.clientPIN), yesNoFlag("user-presence", c.touch), tree.Inside(image)))
				unlocksTheirs(t, image, path)
			})
		}
	}
}

// systemd 257 unlocks with our token in order to enrol a recovery key.
func TestSystemd257UnlocksWhatWeEnrolled(t *testing.T) {
	testenv.Need(t, "unshare")
	for name, firmware := range firmwares {
		for _, c := range choices {
			t.Run(name+" "+c.name, func(t *testing.T) {
				t.Parallel()
				tree := testenv.Systemd257(t)
				k := fidotest.New(fidotest.Config{Firmware: firmware, PIN: pin})
				path, err := k.Terminal(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var answers []string
				if c.clientPIN || firmware == fidotest.CTAP20 {
					answers = []string{pin}
				}
				h := &Handler{Dial: fidotest.Dial(t), Device: path, WithPIN: &c.clientPIN, WithUP: &c.touch}
				_, e := enroll(t, h, 1, answers...)
				image := newImage(t, tree.Dir())
				addToVolume(t, image, e)
				out := run(t, in257(tree, []string{"PIN=" + pin}, "systemd-cryptenroll", "--unlock-fido2-device="+path, "--recovery-key", tree.Inside(image)))
				if !strings.Contains(out, "New recovery key enrolled as key slot 2") {
					t.Error(out)
				}
				if n := k.Stats().WrongPINs; n != 0 {
					t.Errorf("%d wrong PINs", n)
				}
			})
		}
	}
}
