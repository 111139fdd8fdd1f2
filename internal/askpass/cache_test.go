package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// keyName is the description of a key of the test's own; it is removed afterwards.
func keyName(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("luksmith-test-%x", randomNumber())
	err := withUserKeyring(func() error {
		id, err := unix.AddKey("user", name+"-probe", []byte("probe"), unix.KEY_SPEC_USER_KEYRING)
		if err == nil {
			_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
		}
		return err
	})
	if err != nil {
		testenv.NotApplicable(t, "no kernel keyring: "+err.Error())
	}
	t.Cleanup(func() {
		_ = withUserKeyring(func() error {
			id, err := findKey(name)
			if err == nil {
				_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
			}
			return err
		})
	})
	return name
}

func remember(t *testing.T, a *Asker, name, text string) {
	t.Helper()
	s := secret.Copy([]byte(text))
	defer s.Wipe()
	if err := a.Remember(name, s); err != nil {
		t.Fatal(err)
	}
}

func texts(list []secret.Secret) string {
	var out []string
	for _, s := range list {
		out = append(out, string(s.Bytes()))
	}
	return strings.Join(out, "|")
}

func TestKeyringHoldsWhatWasRight(t *testing.T) {
	t.Parallel()
	name := keyName(t)
	writer := New(Options{Cache: CacheYes})
	for _, text := range []string{"one", "two", "one"} {
		remember(t, writer, name, text)
	}
	remember(t, New(Options{Cache: CacheReadOnly}), name, "three")
	remember(t, New(Options{}), name, "four")
	remember(t, writer, "", "five")
	q := Question{Prompt: tokens.Prompt{Text: "PIN", Keyring: name}}
	for _, mode := range []CacheMode{CacheYes, CacheReadOnly} {
		a := New(Options{Cache: mode, Headless: true}) // a keyring is nobody
		answer, err := a.Start(t.Context(), q).Wait()
		if err != nil || texts(answer.Secrets) != "one|two" || answer.Source != FromCache {
			t.Errorf("mode %d: %q, %v", mode, texts(answer.Secrets), err)
		}
		answer.Wipe()
		// The same answers again would be wrong again.
		if _, err := a.Start(t.Context(), q).Wait(); !errors.Is(err, tokens.ErrNoPrompt) {
			t.Errorf("mode %d, second question: %v", mode, err)
		}
		a.Close()
	}
	for what, q := range map[string]Question{
		"a new PIN":      {Prompt: tokens.Prompt{Keyring: name, New: true}},
		"verify":         {Prompt: tokens.Prompt{Keyring: name}, Verify: true},
		"second attempt": {Prompt: tokens.Prompt{Keyring: name, Attempt: 1}},
		"without name":   {},
	} {
		if _, err := New(Options{Cache: CacheYes, Headless: true}).Start(t.Context(), q).Wait(); !errors.Is(err, tokens.ErrNoPrompt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := New(Options{Headless: true}).Start(t.Context(), q).Wait(); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("mode no: %v", err)
	}
}

func TestKeyExpires(t *testing.T) {
	t.Parallel()
	name := keyName(t)
	remember(t, New(Options{Cache: CacheYes}), name, "x")
	keys, err := os.ReadFile("/proc/keys")
	if err != nil {
		testenv.NotApplicable(t, err.Error())
	}
	for line := range strings.Lines(string(keys)) {
		if strings.Contains(line, name+":") {
			if expires := strings.Fields(line)[3]; expires != "2m" {
				t.Errorf("the key expires in %s, want 150 s", expires)
			}
			return
		}
	}
	t.Error("/proc/keys does not show the key")
}

// TestAnotherVolumeWasOpened: the answer that opened it is found while this
// volume's prompt is open.
func TestAnotherVolumeWasOpened(t *testing.T) {
	t.Parallel()
	name, dir, r := keyName(t), t.TempDir(), newRig(t)
	first := New(Options{Cache: CacheYes, AgentDir: dir})
	remember(t, first, name, "wrong here")
	a := New(Options{Cache: CacheYes, AgentDir: dir, Console: r.console})
	q := Question{Prompt: tokens.Prompt{Text: "PIN", Keyring: name}}
	answer, err := a.Start(t.Context(), q).Wait()
	if err != nil || texts(answer.Secrets) != "wrong here" {
		t.Fatalf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
	q.Attempt = 1
	p := a.Start(t.Context(), q)
	r.shows("PIN: (press TAB for no echo)")
	r.types("half")
	remember(t, first, name, "right")
	answer, err = p.Wait()
	if err != nil || texts(answer.Secrets) != "wrong here|right" || answer.Source != FromCache {
		t.Errorf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
	r.showsOnly("Wrong passphrase, please try again.\n")
	empty(t, dir)
}

// TestCacheAloneIsNoWayToAsk: without anybody who answers, waiting for the
// keyring would last forever.
func TestCacheAloneIsNoWayToAsk(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), "file", "", 0o600)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a := New(Options{Cache: CacheYes, AgentDir: file + "/x"})
	if _, err := a.Ask(ctx, tokens.Prompt{Text: "PIN", Keyring: "luksmith-test-absent"}); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("%v", err)
	}
}

// TestSystemdSharesTheKeyring: what we remember systemd-ask-password finds, and
// the reverse.
func TestSystemdSharesTheKeyring(t *testing.T) {
	testenv.Need(t, "systemd-ask-password", "unshare", "timeout")
	testenv.NeedRoot(t)
	t.Parallel()
	name := keyName(t)
	a := New(Options{Cache: CacheYes, Headless: true})
	defer a.Close()
	remember(t, a, name, "from us")
	remember(t, a, name, "second")
	// Without a session keyring of its own it looks into the user's.
	cmd := exec.Command("systemd-ask-password", "--no-tty", "--accept-cached", "--multiple", "--keyname="+name, "--timeout=1", "PIN:")
	if out, err := cmd.Output(); err != nil || string(out) != "from us\nsecond\n" {
		t.Errorf("systemd finds %q, %v", out, err)
	}
	q := Question{Prompt: tokens.Prompt{Text: "PIN", Keyring: name}}
	answer, err := a.Start(t.Context(), q).Wait()
	if err != nil {
		t.Fatal(err)
	}
	answer.Wipe()
	script := `mount -t tmpfs tmpfs /run/systemd/ask-password
systemd-ask-password --no-tty --no-output --keyname=` + name + ` --timeout=10 PIN: &
until [ -e /run/systemd/ask-password/ask.* ]; do sleep 0.01; done
printf 'from systemd' | /lib/systemd/systemd-reply-password 1 "$(sed -n s/^Socket=//p /run/systemd/ask-password/ask.*)"
wait`
	testenv.Run(t, "timeout", "60", "unshare", "-m", "sh", "-c", script)
	answer, err = a.Start(t.Context(), q).Wait()
	if err != nil || texts(answer.Secrets) != "from us|second|from systemd" {
		t.Errorf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
}

func TestKeyTooLongIsNotCached(t *testing.T) {
	t.Parallel()
	name := keyName(t)
	a := New(Options{Cache: CacheYes, Headless: true})
	remember(t, a, name, strings.Repeat("x", maxCached+1))
	remember(t, a, name, "")
	if list, err := readKeyring(name); err == nil {
		t.Errorf("%d answers", len(list))
	}
	testenv.NeedRoot(t) // other users have 20,000 bytes in the kernel
	started := time.Now()
	remember(t, a, name, strings.Repeat("x", maxCached))
	if list, err := readKeyring(name); err != nil || len(list) != 1 || list[0].Len() != maxCached {
		t.Errorf("%v after %v", err, time.Since(started))
	}
}
