package fido2

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"luksmith/internal/helper"
	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

func TestMain(m *testing.M) { os.Exit(fidotest.Main(m)) }

const pin = "123456"

// rig is a key and the way to it.
type rig struct {
	key  *fidotest.Key
	dial func(context.Context) (helper.Conn, error)
	path string
}

// onBoth runs a test with the key on a bench, and once more with libfido2 and the
// real helper program.
func onBoth(t *testing.T, c fidotest.Config, f func(t *testing.T, r *rig)) {
	t.Helper()
	t.Run("bench", func(t *testing.T) {
		t.Parallel()
		k := fidotest.New(c)
		f(t, &rig{k, fidotest.NewBench(k).Dial, "auto"})
	})
	t.Run("libfido2", func(t *testing.T) {
		t.Parallel()
		k := fidotest.New(c)
		path, err := k.Terminal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f(t, &rig{k, fidotest.Dial(t), path})
	})
}

func (r *rig) handler(set ...func(*Handler)) *Handler {
	h := &Handler{Dial: r.dial, Device: r.path, UnlockDevice: r.path}
	for _, s := range set {
		s(h)
	}
	return h
}

func boolean(b bool) *bool { return &b }

func with(pin, up, uv *bool) func(*Handler) {
	return func(h *Handler) { h.WithPIN, h.WithUP, h.WithUV = pin, up, uv }
}

func withoutPIN(h *Handler) { h.WithPIN = boolean(false) }

func volume(list ...luks2.Token) tokens.Volume {
	return tokens.Volume{UUID: "3f1c1d5e-6f0c-4b5e-9d0e-0c4e0a2f9d11", Device: "/dev/sda2", Tokens: list}
}

func request(list ...luks2.Token) *tokens.EnrollRequest {
	return &tokens.EnrollRequest{Volume: volume(list...), Compat: 262}
}

// enrol enrols and returns the token as the header would hold it, with the
// passphrase.
func enroll(t *testing.T, h *Handler, id int, answers ...string) (luks2.Token, *tokens.Enrollment) {
	t.Helper()
	e, err := h.Enroll(t.Context(), request(), tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Passphrase.Wipe)
	return luks2.Token{ID: id, Type: Type, Keyslots: []int{id}, Raw: e.Token}, e
}

// opener opens the keyslots whose passphrase it knows.
func opener(known ...secret.Secret) func(context.Context, luks2.Token, secret.Secret) error {
	return func(_ context.Context, _ luks2.Token, p secret.Secret) error {
		for _, k := range known {
			if p.Equal(k) {
				return nil
			}
		}
		return tokens.ErrWrongKey
	}
}

func unlock(t *testing.T, h *Handler, ui tokens.UI, opens func(context.Context, luks2.Token, secret.Secret) error, list ...luks2.Token) (*tokens.Unlocked, error) {
	t.Helper()
	got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Volume: volume(list...), Tokens: list, Opens: opens}, ui)
	if got != nil {
		t.Cleanup(got.Passphrase.Wipe)
	}
	return got, err
}

func wantUnlocked(t *testing.T, got *tokens.Unlocked, err error, e *tokens.Enrollment) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Passphrase.Equal(e.Passphrase) {
		t.Error("another passphrase than that of the enrolment")
	}
}

func wantError(t *testing.T, err, is error, text string) {
	t.Helper()
	if !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want %v with %q", err, is, text)
	}
}

func TestConformance(t *testing.T) {
	for name, config := range map[string]fidotest.Config{
		"CTAP 2.1": {Firmware: fidotest.CTAP21, PIN: pin, Product: "Test Key A"},
		"CTAP 2.0": {Firmware: fidotest.CTAP20, PIN: pin, Product: "Test Key B"},
	} {
		t.Run(name, func(t *testing.T) {
			bench, empty := fidotest.NewBench(fidotest.New(config)), fidotest.NewBench()
			tokentest.Run(t, tokentest.Subject{
				New:           func(*testing.T) tokens.Handler { return &Handler{Dial: bench.Dial} },
				Absent:        func(*testing.T) tokens.Handler { return &Handler{Dial: empty.Dial} },
				EnrollAnswers: []string{pin},
				UnlockAnswers: []string{pin},
				Valid: []tokentest.Fixture{
					{Name: "systemd257-fido2-pin", Token: string(readFixture(t, "systemd257-fido2-pin").Token)},
					{Name: "systemd257-fido2-up", Token: string(readFixture(t, "systemd257-fido2-up").Token)},
					{Name: "without flags, as systemd 248", Token: `{"type":"systemd-fido2","keyslots":["1"],` + cred + `,` + salt + `}`},
				},
				Malformed: []tokentest.Malformed{
					{Name: "no credential", Token: `{` + salt + `}`, Field: memberCredential},
					{Name: "short salt", Token: `{` + cred + `,"fido2-salt":"AAAA"}`, Field: memberSalt},
					{Name: "flag as text", Token: `{` + cred + `,` + salt + `,"fido2-up-required":"yes"}`, Field: memberUP},
				},
				Sealed: []string{memberCredential, memberSalt},
			})
		})
	}
}

// The conformance suite with processes: nothing may be left of them.
func TestConformanceOverLibfido2(t *testing.T) {
	k := fidotest.New(fidotest.Config{PIN: pin})
	path, err := k.Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dial := fidotest.Dial(t)
	tokentest.Run(t, tokentest.Subject{
		New: func(*testing.T) tokens.Handler { return &Handler{Dial: dial, Device: path, UnlockDevice: path} },
		Absent: func(*testing.T) tokens.Handler {
			return &Handler{Dial: dial, Device: "/dev/nonexistent", UnlockDevice: "/dev/nonexistent"}
		},
		EnrollAnswers: []string{pin},
		UnlockAnswers: []string{pin},
		Valid:         []tokentest.Fixture{{Name: "systemd257-fido2-up", Token: string(readFixture(t, "systemd257-fido2-up").Token)}},
		Malformed:     []tokentest.Malformed{{Name: "no credential", Token: `{` + salt + `}`, Field: memberCredential}},
	})
}

func TestDeviceTable(t *testing.T) {
	t.Parallel()
	yubikey := [16]byte{0x2f, 0xc0, 0x57, 0x9f, 0x81, 0x13, 0x47, 0xea, 0xb1, 0x16, 0xbb, 0x5a, 0x8d, 0xb9, 0x20, 0x2a}
	bench := fidotest.NewBench(
		fidotest.New(fidotest.Config{PIN: pin, AAGUID: yubikey, Product: "YubiKey OTP+FIDO+CCID"}),
		fidotest.New(fidotest.Config{Firmware: fidotest.CTAP20, NoHMACSecret: true, BuiltInUV: true, Product: "Old\x1b[2J"}),
		fidotest.New(fidotest.Config{Fault: fidotest.Silent, Product: "Mute"}))
	table, err := (&Handler{Dial: bench.Dial, answerLimit: 100 * time.Millisecond}).Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range table.Rows {
		got = append(got, strings.Join(row, "|"))
	}
	want := []string{
		"/dev/hidraw0|luksmith|YubiKey OTP+FIDO+CCID|yes|yes|yes|yes|no|YubiKey 5 NFC",
		"/dev/hidraw1|luksmith|Old[2J|no|yes|no|yes|yes|Old[2J",
		"/dev/hidraw2|luksmith|Mute||||||",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSupportNotInstalled(t *testing.T) {
	t.Parallel()
	for name, cause := range map[string]string{
		"absent":        "no luksmith-fido2 in /usr/bin",
		"other version": "luksmith-fido2 is version 0.0.1, this program is version 0.1.0",
		"no library":    "luksmith-fido2 does not start: error while loading shared libraries: libfido2.so.1",
	} {
		h := &Handler{Dial: func(context.Context) (helper.Conn, error) {
			return nil, &notInstalledCause{cause}
		}}
		tok := luks2.Token{ID: 3, Type: Type, Raw: readFixture(t, "systemd257-fido2-up").Token}
		_, err := unlock(t, h, tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrNotBuilt, "FIDO2 support not installed ("+cause+")")
		_, err = h.Enroll(t.Context(), request(), tokentest.NewUI(t))
		wantError(t, err, tokens.ErrNotBuilt, "FIDO2 support not installed")
		if _, err := h.Describe(tok); err != nil {
			t.Errorf("%s: list needs the helper: %v", name, err)
		}
	}
}

type notInstalledCause struct{ text string }

func (e *notInstalledCause) Error() string        { return e.text }
func (e *notInstalledCause) Is(target error) bool { return target == helper.ErrNotInstalled }
