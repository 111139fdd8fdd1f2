package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// failingKeys are third fields that give no key, made in the root of a bench.
var failingKeys = map[string]func(t *testing.T, b *bench) string{
	"no key file": func(*testing.T, *bench) string { return "-" },
	"absent":      func(_ *testing.T, b *bench) string { return filepath.Join(b.root, "absent") },
	"wrong":       func(t *testing.T, b *bench) string { return b.file(t, "k", "wrong") },
	"empty":       func(t *testing.T, b *bench) string { return b.file(t, "k", "") },
	"directory":   func(_ *testing.T, b *bench) string { return b.root },
	"FIFO": func(t *testing.T, b *bench) string {
		path := filepath.Join(b.root, "fifo")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	},
	"too large": func(t *testing.T, b *bench) string {
		path := b.file(t, "k", "")
		if err := os.Truncate(path, maxKeyFile+1); err != nil {
			t.Fatal(err)
		}
		return path
	},
	"unreadable": func(*testing.T, *bench) string { return "/proc/self/mem" },
	"server that refuses": func(t *testing.T, _ *bench) string {
		path, _ := serve(t, func(c net.Conn) { _ = c.Close() })
		return path
	},
	"file system that cannot be mounted": func(t *testing.T, b *bench) string { return "/key:" + b.file(t, "stick", "") },
	"silent server": func(t *testing.T, _ *bench) string {
		path, _ := serve(t, func(net.Conn) { time.Sleep(20 * time.Second) })
		return path
	},
	"device that does not come": func(*testing.T, *bench) string { return "/key:UUID=" + uuid3 },
}

// failingTokens are chips that give no key.
var failingTokens = map[string]func(context.Context) error{
	"no token": nil,
	"dead":     func(context.Context) error { return tokenFails(0, tokens.ErrPolicy) },
	"locked":   func(context.Context) error { return tokenFails(0, tokens.ErrLocked) },
	"unknown":  func(context.Context) error { return errors.New("something is wrong") },
	"absent":   func(context.Context) error { return tokens.ErrNoDevice },
	"hanging": func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	},
}

// chip is a plug whose outcome depends on its context.
type chip struct {
	plug
	outcome func(context.Context) error
}

func (c *chip) Unlock(ctx context.Context, _ *tokens.UnlockRequest, _ tokens.UI) (*tokens.Unlocked, error) {
	return nil, c.outcome(ctx)
}

// brokenBench cannot mount anything, and finds no device by UUID.
func brokenBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.mount = func(context.Context, string) (string, func() error, error) {
		return "", nil, errors.New("no file system")
	}
	b.devices.resolve = func(ref crypttab.DeviceRef) (string, error) {
		if ref.Tag != crypttab.TagPath {
			return "", fmt.Errorf("%s: %w", ref, fs.ErrNotExist)
		}
		return resolveFile(ref)
	}
	return b
}

// hangs reports whether something takes so long that the question comes before it has
// failed. What is in the report then depends on how fast the answer comes.
func hangs(tokenName, keyName string) bool {
	return tokenName == "hanging" || keyName == "silent server" || keyName == "device that does not come" && tokenName != "no token"
}

// TestEveryFailureEndsAtThePrompt has all key files that fail with all tokens that
// fail, a wrong file in keys.d, the empty passphrase, and tries=1: the question comes,
// and the right answer opens the volume.
func TestEveryFailureEndsAtThePrompt(t *testing.T) {
	image := imageWithToken(t, "systemd-tpm2")
	credential(t, "cryptsetup.passphrase", "wrong")
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, 12) // most of the time is spent waiting
	for tokenName, outcome := range failingTokens {
		for keyName, key := range failingKeys {
			places <- struct{}{}
			running.Go(func() {
				defer func() { <-places }()
				b := brokenBench(t)
				b.patience = time.Minute
				if hangs(tokenName, keyName) {
					b.patience = 50 * time.Millisecond
				}
				options := "tries=1,password-cache=no,try-empty-password"
				want := []string{"empty passphrase", "key file " + b.file(t, "etc/cryptsetup-keys.d/vol.key", "wrong"), "stored passphrase"}
				if outcome != nil {
					b.newHandlers = func() tokens.Set { return tokens.Set{&chip{plug{typ: "tpm2"}, outcome}} }
					options += ",tpm2-device=auto"
				}
				asked := b.agent(t, "+"+rightPassphrase)
				r, err := b.run(t, "vol", image, key(t, b), options)
				if err != nil || len(asked()) != 1 || len(b.mapped) != 1 {
					t.Errorf("token %s, key %s: %v, asked %d times", tokenName, keyName, err, len(asked()))
					return
				}
				for _, way := range want {
					if !hangs(tokenName, keyName) && !slices.Contains(failedWays(r), way) {
						t.Errorf("token %s, key %s: the report lacks %s: %q", tokenName, keyName, way, failedWays(r))
					}
				}
			})
		}
	}
}

// TestSignalAtEveryStage: nothing is mapped, mounted or asked afterwards, and the exit
// status says that it was cancelled.
func TestSignalAtEveryStage(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	withChip := func(outcome func(context.Context) error) func(*testing.T, *bench) {
		return func(_ *testing.T, b *bench) {
			b.newHandlers = func() tokens.Set { return tokens.Set{&chip{plug{typ: "tpm2"}, outcome}} }
		}
	}
	for name, tt := range map[string]struct {
		key, options string
		prepare      func(*testing.T, *bench)
	}{
		"token that works":      {"-", "tpm2-device=auto,headless", withChip(hang)},
		"token that is absent":  {"-", "tpm2-device=auto,headless", withChip(func(context.Context) error { return tokens.ErrNoDevice })},
		"key device":            {"/key:UUID=" + uuid3, "headless", nil},
		"header device":         {"-", "header=/h:UUID=" + uuid3, nil},
		"other latched volumes": {"RIGHT", "tpm2-measure-pcr=yes", func(_ *testing.T, b *bench) { b.latch = newLatch(1) }},
		"measuring": {"RIGHT", "tpm2-measure-pcr=yes", func(_ *testing.T, b *bench) {
			b.measure = func(ctx context.Context, _ *tpm2.Handler, _ *tpm2.MeasureRequest) (*tpm2.Measured, error) {
				return nil, hang(ctx)
			}
		}},
		"reading a mounted key": {"/key:STICK", "headless", func(t *testing.T, b *bench) {
			root, mounted := t.TempDir(), 0
			b.mount = func(ctx context.Context, _ string) (string, func() error, error) {
				mounted++
				_ = hang(ctx)
				return root, func() error { mounted--; return nil }, nil
			}
			t.Cleanup(func() {
				if mounted != 0 {
					t.Errorf("mounted %d times", mounted)
				}
			})
		}},
	} {
		b := brokenBench(t)
		if tt.prepare != nil {
			tt.prepare(t, b)
		}
		image := imageWithToken(t, "systemd-tpm2")
		key := strings.NewReplacer("RIGHT", b.file(t, "k", rightKey), "STICK", b.file(t, "stick", "")).Replace(tt.key)
		ctx, cancel := context.WithCancelCause(b.ctx)
		b.ctx = ctx
		time.AfterFunc(50*time.Millisecond, func() { cancel(&cli.SignalError{Signal: os.Interrupt}) })
		r, err := b.run(t, "vol", image, key, tt.options)
		if cli.ExitStatus(err) != cli.ExitCancelled || len(b.mapped) != 0 {
			t.Errorf("%s: %v, mapped %v", name, err, b.mapped)
		}
		if r != nil && r.Result != "failed" {
			t.Errorf("%s: report %+v", name, r)
		}
		if left, _ := filepath.Glob(filepath.Join(b.root, "ask", "*")); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

// TestServerSeesWhatItsKeyIsFor: the names are those of systemd 257.
func TestServerSeesWhatItsKeyIsFor(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"":                                 "/cryptsetup/vol",
		"tpm2-device=auto":                 "/cryptsetup-tpm2/vol",
		"fido2-device=auto,fido2-cid=YQ==": "/cryptsetup-fido2-salt/vol",
		"pkcs11-uri=pkcs11:object=x":       "/cryptsetup-pkcs11/vol",
	} {
		b := newBench(t)
		var set tokens.Set
		for _, typ := range []string{"tpm2", "fido2", "pkcs11"} {
			set = append(set, &plug{typ: typ, script: []func(*tokens.UnlockRequest) error{fails(tokenFails(-1, tokens.ErrPolicy))}})
		}
		b.newHandlers = func() tokens.Set { return set }
		path, peer := serve(t, func(c net.Conn) { _, _ = c.Write([]byte("data")) })
		_, _ = b.run(t, "vol", newImage(t), path, strings.TrimPrefix("headless,"+options, ","))
		if name := <-peer; !strings.HasSuffix(name, want) || strings.Count(name, "/") != 2 {
			t.Errorf("%q: the server sees %q, want …%s", options, name, want)
		}
	}
}

// TestSaltIsNotTriedAsPassphrase: what the key file holds for a token type goes to
// that type alone, unless its options cannot be used.
func TestSaltIsNotTriedAsPassphrase(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]bool{
		"": true, "fido2-device=auto": true, "fido2-device=auto,fido2-cid=YQ==": false, "fido2-device=auto,fido2-cid=YQ==,fido2-rp=": true,
	} {
		b := newBench(t)
		var set tokens.Set
		for _, typ := range []string{"tpm2", "fido2", "pkcs11"} {
			set = append(set, &plug{typ: typ, script: []func(*tokens.UnlockRequest) error{fails(tokenFails(-1, tokens.ErrPolicy))}})
		}
		b.newHandlers = func() tokens.Set { return set }
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(rightKey), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.run(t, "vol", newImage(t), path, strings.TrimPrefix("headless,"+options, ",")); (err == nil) != want {
			t.Errorf("%q: %v, want it opened: %t", options, err, want)
		}
	}
}
