//go:build cgo

package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	libfido2 "github.com/keys-pub/go-libfido2"
	"golang.org/x/sys/unix"

	"luksmith/internal/helper"
	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/fido2/wire"
)

func TestMain(m *testing.M) { os.Exit(fidotest.Main(m)) }

// session is a client of the real program, with a key in a terminal.
func session(t *testing.T, k *fidotest.Key) (*wire.Client, string) {
	t.Helper()
	path, err := k.Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dial(t), path
}

func dial(t *testing.T) *wire.Client {
	t.Helper()
	conn, err := fidotest.Dial(t)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &wire.Client{Conn: conn}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const pin = "123456"

func newCredential(path string) *wire.NewCredential {
	return &wire.NewCredential{Path: path, RP: "io.systemd.cryptsetup", RPName: "Encrypted Volume", UserID: []byte("u"), UserName: "u",
		DisplayName: "/dev/x", Algorithm: wire.ES256, RK: wire.False}
}

// exchange is everything that a handler asks of a backend. The words are what came
// out, for comparison.
func exchange(ctx context.Context, b wire.Backend, path string) (words []string, out secret.Secret) {
	thePIN, salts := secret.Copy([]byte(pin)), secret.New(64)
	defer thePIN.Wipe()
	defer salts.Wipe()
	salts.Bytes()[63] = 1
	note := func(what string, err error) bool {
		word := what
		if err != nil {
			word += ": " + wire.CodeOf(err)
			if wire.CodeOf(err) == "" {
				word += err.Error()
			}
		}
		words = append(words, word)
		return err == nil
	}
	info, err := b.Info(ctx, path)
	if !note("info", err) {
		return words, out
	}
	if info.Options["clientPin"] {
		words = append(words, "has PIN")
	}
	cred, err := b.MakeCredential(ctx, newCredential(path), thePIN)
	if !note("create", err) {
		return words, out
	}
	a := &wire.Assertion{Path: path, RP: "io.systemd.cryptsetup", Credential: cred.ID, UP: wire.False}
	_, err = b.Assert(ctx, a, secret.Secret{}, secret.Secret{})
	note("pre-flight", err)
	a.Credential = bytes.Repeat([]byte{1}, 64)
	_, err = b.Assert(ctx, a, secret.Secret{}, secret.Secret{})
	note("other credential", err)
	a.Credential, a.UP = cred.ID, wire.True
	answer, err := b.Assert(ctx, a, thePIN, salts)
	if note("derive", err) {
		out = answer.Secret
		if answer.UP {
			words = append(words, "up")
		}
		if answer.UV {
			words = append(words, "uv")
		}
	}
	return words, out
}

// The backend of the fast tests and the real one say the same about keys of every
// make, and get the same secrets out of them.
func TestBenchAndLibraryAgree(t *testing.T) {
	good := []string{"info", "has PIN", "create", "pre-flight", "other credential: no-credentials", "derive", "up", "uv"}
	for name, tt := range map[string]struct {
		config fidotest.Config
		want   []string
	}{
		"CTAP 2.1":           {fidotest.Config{}, good},
		"CTAP 2.0":           {fidotest.Config{Firmware: fidotest.CTAP20}, good},
		"long credential id": {fidotest.Config{CredentialIDSize: 1023}, good},
		"always UV":          {fidotest.Config{AlwaysUV: true}, good},
		"no hmac-secret":     {fidotest.Config{NoHMACSecret: true}, append(good[:5:5], "derive: broken")},
		"other PIN":          {fidotest.Config{PIN: "654321"}, []string{"info", "has PIN", "create: pin-invalid"}},
		"empty id":           {fidotest.Config{Fault: fidotest.EmptyID}, []string{"info", "has PIN", "create: broken"}},
		"huge id":            {fidotest.Config{Fault: fidotest.HugeID}, []string{"info", "has PIN", "create: broken"}},
		"no CBOR":            {fidotest.Config{Fault: fidotest.NotCBOR}, []string{"info: broken"}},
		"wrong CBOR":         {fidotest.Config{Fault: fidotest.WrongCBOR}, nil},
		"short secret":       {fidotest.Config{Fault: fidotest.ShortSecret}, append(good[:5:5], "derive: broken")},
		"no secret":          {fidotest.Config{Fault: fidotest.NoSecret}, append(good[:5:5], "derive: broken")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tt.config
			if c.PIN == "" {
				c.PIN = pin
			}
			conn, err := fidotest.NewBench(fidotest.New(c)).Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			bench := &wire.Client{Conn: conn}
			defer bench.Close()
			words, ours := exchange(t.Context(), bench, fidotest.Path(0))
			defer ours.Wipe()
			client, path := session(t, fidotest.New(c))
			theirWords, theirs := exchange(t.Context(), client, path)
			defer theirs.Wipe()
			t.Log(words, theirWords)
			if tt.want == nil {
				return // only that nothing breaks
			}
			for who, got := range map[string][]string{"bench": words, "library": theirWords} {
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s: %q, want %q", who, got, tt.want)
				}
			}
		})
	}
}

// The same seed makes the same key, so both paths must give the same bytes.
func TestBenchAndLibraryDeriveTheSame(t *testing.T) {
	for _, firmware := range []fidotest.Firmware{fidotest.CTAP21, fidotest.CTAP20} {
		config := fidotest.Config{Firmware: firmware, Seed: "same", PIN: pin}
		bench := fidotest.NewBench(fidotest.New(config))
		client, path := session(t, fidotest.New(config))
		thePIN, salt := secret.Copy([]byte(pin)), secret.New(32)
		defer thePIN.Wipe()
		defer salt.Wipe()
		cred, err := client.MakeCredential(t.Context(), newCredential(path), thePIN)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []secret.Secret{thePIN, {}} {
			a := wire.Assertion{Path: path, RP: "io.systemd.cryptsetup", Credential: cred.ID, UP: wire.True}
			x, err := client.Assert(t.Context(), &a, p, salt)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Secret.Wipe()
			a.Path = fidotest.Path(0)
			y, err := bench.Assert(t.Context(), &a, p, salt)
			if err != nil {
				t.Fatal(err)
			}
			defer y.Secret.Wipe()
			if !x.Secret.Equal(y.Secret) || x.UV != y.UV || x.UP != y.UP {
				t.Errorf("firmware %d, PIN of %d bytes: the secrets differ", firmware, p.Len())
			}
		}
	}
}

func TestDevicesThatAreNoKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := dial(t)
	for path, want := range map[string]string{
		"/dev/nonexistent":               wire.NoDevice,
		filepath.Join(file, "x"):         wire.NoDevice,
		file:                             wire.NotFIDO2,
		dir:                              wire.NotFIDO2,
		"/dev/null":                      wire.NotFIDO2,
		"/dev/zero":                      wire.NotFIDO2, // libfido2 would read it forever
		"/dev/tty":                       wire.NotFIDO2,
		"":                               "bad-request",
		"/dev/hidraw0\x00":               "bad-request",
		"/" + string(make([]byte, 5000)): "bad-request",
	} {
		if _, err := c.Info(t.Context(), path); wire.CodeOf(err) != want {
			t.Errorf("%.40q: %v, want %s", path, err, want)
		}
	}
}

func TestUnpluggedWhileWaitingForTheTouch(t *testing.T) {
	t.Parallel()
	k := fidotest.New(fidotest.Config{Fault: fidotest.UnplugOnTouch})
	c, path := session(t, k)
	begin := time.Now()
	_, err := c.MakeCredential(t.Context(), newCredential(path), secret.Secret{})
	if wire.CodeOf(err) != wire.Removed || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if _, err := c.Info(t.Context(), path); wire.CodeOf(err) != wire.NoDevice {
		t.Errorf("after that: %v", err)
	}
}

// Keys that never answer are given up with the process.
func TestSilentKeysEndWithTheDeadline(t *testing.T) {
	for name, fault := range map[string]fidotest.Fault{"silent": fidotest.Silent, "silent in commands": fidotest.SilentCommands,
		"truncated answer": fidotest.Truncated, "keepalives forever": fidotest.NoisyKeepalive} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, path := session(t, fidotest.New(fidotest.Config{Fault: fault}))
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			begin := time.Now()
			_, err := c.MakeCredential(ctx, newCredential(path), secret.Secret{})
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 3*time.Second {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	}
}

func TestOversizedAnswer(t *testing.T) {
	t.Parallel()
	c, path := session(t, fidotest.New(fidotest.Config{Fault: fidotest.Oversized}))
	if _, err := c.MakeCredential(t.Context(), newCredential(path), secret.Secret{}); wire.CodeOf(err) != wire.Broken {
		t.Error(err)
	}
}

// Ctrl-C takes the request back from the key, which then stops blinking.
func TestCancelReachesTheKey(t *testing.T) {
	t.Parallel()
	k := fidotest.New(fidotest.Config{})
	k.SetTouch(fidotest.Touch{Never: true})
	c, path := session(t, k)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	if _, err := c.MakeCredential(ctx, newCredential(path), secret.Secret{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	k.SetTouch(fidotest.Touch{})
	again := dial(t)
	if _, err := again.MakeCredential(t.Context(), newCredential(path), secret.Secret{}); err != nil {
		t.Errorf("the key is still busy with the request that was cancelled: %v", err)
	}
}

func TestSecondProgramWaitsForTheKey(t *testing.T) {
	t.Parallel()
	c, path := session(t, fidotest.New(fidotest.Config{}))
	other, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fd := int(other.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	told := 0
	c.OnEvent = func(event string) {
		if event == wire.EventInUse {
			told++
			time.AfterFunc(300*time.Millisecond, func() { _ = unix.Flock(fd, unix.LOCK_UN) })
		}
	}
	if _, err := c.Info(t.Context(), path); err != nil || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
}

func TestListIsEmptyWithoutHIDDevices(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/class/hidraw"); err == nil {
		testenv.NotApplicable(t, "this machine has HID devices")
	}
	if list, err := dial(t).List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestAuthDataFlags(t *testing.T) {
	data := append(make([]byte, 32), flagUP|flagUV, 0, 0, 0, 1)
	for _, tt := range []struct {
		b    []byte
		want int
	}{
		{append([]byte{0x58, 37}, data...), flagUP | flagUV},
		{append([]byte{0x59, 0, 37}, data...), flagUP | flagUV},
		{append([]byte{0x58, 32}, data[:32]...), -1},
		{[]byte{0x58}, -1}, {nil, -1}, {[]byte{0xa0, 1, 2}, -1},
	} {
		got, err := authDataFlags(tt.b)
		if (err != nil) != (tt.want < 0) || err == nil && int(got) != tt.want {
			t.Errorf("%x: %#x, %v", tt.b, got, err)
		}
	}
}

func TestUsagePages(t *testing.T) {
	fido := []byte{0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01}
	for name, tt := range map[string]struct {
		descriptor []byte
		want       bool
	}{
		"FIDO":              {fido, true},
		"after a long item": {append([]byte{0xfe, 2, 0, 1, 2}, fido...), true},
		"after others":      {append([]byte{0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0xc0}, fido...), true},
		"keyboard":          {[]byte{0x05, 0x01, 0x09, 0x06, 0xa1, 0x01}, false},
		"usage, not page":   {[]byte{0x0a, 0xd0, 0xf1}, false},
		"cut short":         {[]byte{0x06, 0xd0}, false},
		"empty":             {nil, false},
		"long item cut":     {[]byte{0xfe}, false},
	} {
		if got := isFIDO(tt.descriptor); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzReportDescriptor(f *testing.F) {
	f.Add([]byte{0x06, 0xd0, 0xf1, 0x09, 0x01})
	f.Add([]byte{0xfe, 0xff, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { isFIDO(b) })
}

func TestErrorsOfOpening(t *testing.T) {
	for errno, want := range map[unix.Errno]string{unix.ENOENT: wire.NoDevice, unix.ENXIO: wire.NoDevice, unix.ENODEV: wire.NoDevice, unix.ENOTDIR: wire.NoDevice,
		unix.EACCES: wire.NoPermission, unix.EPERM: wire.NoPermission, unix.EBUSY: wire.InUse, unix.EIO: wire.NotFIDO2} {
		err := openError(&fs.PathError{Op: "open", Path: "/dev/hidraw0", Err: errno})
		if wire.CodeOf(err) != want || !strings.Contains(err.Error(), "open /dev/hidraw0: ") {
			t.Errorf("%v: %v, want %s", errno, err, want)
		}
	}
}

func TestErrorsOfTheLibrary(t *testing.T) {
	for code, want := range map[int]string{0x32: wire.PINBlocked, 0x3c: wire.UVBlocked, 0x3f: wire.UVInvalid, 0x26: wire.UnsupportedAlgorithm, 0x7e: "failed"} {
		if got := wire.CodeOf(errorOf(libfido2.Error{Code: code})); got != want {
			t.Errorf("%#x: %s, want %s", code, got, want)
		}
	}
	if got := wire.CodeOf(errorOf(libfido2.ErrPinAuthBlocked)); got != wire.PINAuthBlocked {
		t.Error(got)
	}
	var e *helper.Error
	if err := errorOf(libfido2.ErrRX); !errors.As(err, &e) || e.Message == "" {
		t.Error(err)
	}
}
