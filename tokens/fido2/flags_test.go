package fido2

import (
	"encoding/json"
	"strings"
	"testing"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

func TestFingerprints(t *testing.T) {
	uv := with(boolean(false), nil, boolean(true))
	onBoth(t, fidotest.Config{PIN: pin, BuiltInUV: true}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(uv), 0)
		ui := tokentest.NewUI(t)
		got, err := unlock(t, r.handler(), ui, opener(e.Passphrase), tok)
		wantUnlocked(t, got, err, e)
		if len(ui.Shown()) != 1 || !strings.Contains(ui.Shown()[0], "fingerprint") {
			t.Errorf("shown %q", ui.Shown())
		}
		// No finger matches: after the tries the PIN does as well, for the same
		// secret.
		r.key.SetFinger(false)
		ui = tokentest.NewUI(t, tokentest.Typed(pin)...)
		got, err = unlock(t, r.handler(), ui, opener(e.Passphrase), tok)
		wantUnlocked(t, got, err, e)
		if len(ui.Notes()) != 1 {
			t.Errorf("notes %q", ui.Notes())
		}
	})
}

func TestBlockedFingerprintReaderWithoutPIN(t *testing.T) {
	onBoth(t, fidotest.Config{BuiltInUV: true}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(with(nil, nil, boolean(true))), 0)
		r.key.SetFinger(false)
		_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrLocked, "too many wrong ones")
	})
}

// The reader is blocked already; the PIN unblocks it.
func TestReaderBlockedBefore(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin, BuiltInUV: true}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(with(boolean(false), nil, boolean(true))), 0)
		r.key.SetFinger(false)
		for range 2 {
			got, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), nil, tok)
			wantUnlocked(t, got, err, e)
		}
	})
}

// change rewrites members of a token as somebody with a hex editor would.
func change(t *testing.T, tok luks2.Token, name, value string) luks2.Token {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(tok.Raw, &m); err != nil {
		t.Fatal(err)
	}
	m[name] = json.RawMessage(value)
	if value == "" {
		delete(m, name)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	tok.Raw = raw
	return tok
}

func TestFlippedPINFlagIsNamed(t *testing.T) {
	for name, config := range map[string]fidotest.Config{"CTAP 2.1": {PIN: pin}, "CTAP 2.0": {PIN: pin, Firmware: fidotest.CTAP20}} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, config, func(t *testing.T, r *rig) {
				tok, e := enroll(t, r.handler(), 0, pin)
				_, err := unlock(t, r.handler(), tokentest.NewUI(t), opener(e.Passphrase), change(t, tok, memberPIN, "false"))
				wantError(t, err, tokens.ErrWrongKey, "fido2-clientPin-required")
				touch, e2 := enroll(t, r.handler(withoutPIN, func(h *Handler) { h.WithUP = boolean(true) }), 1, answersFor(config)...)
				_, err = unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), opener(e2.Passphrase), change(t, touch, memberPIN, "true"))
				wantError(t, err, tokens.ErrWrongKey, "fido2-clientPin-required")
			})
		})
	}
}

// answersFor is the PIN if the firmware wants one for any credential.
func answersFor(c fidotest.Config) []string {
	if c.Firmware == fidotest.CTAP20 {
		return []string{c.PIN}
	}
	return nil
}

// Tokens of systemd 248 have no flags: the key decides.
func TestTokensWithoutFlags(t *testing.T) {
	strip := func(t *testing.T, tok luks2.Token) luks2.Token {
		for _, m := range []string{memberPIN, memberUP, memberUV} {
			tok = change(t, tok, m, "")
		}
		return tok
	}
	for name, tt := range map[string]struct {
		config  fidotest.Config
		set     func(*Handler)
		enrolls []string
		unlocks []string
	}{
		"touch, firmware A":    {fidotest.Config{PIN: pin}, withoutPIN, nil, nil},
		"touch, firmware B":    {fidotest.Config{PIN: pin, Firmware: fidotest.CTAP20}, withoutPIN, []string{pin}, nil},
		"PIN that is demanded": {fidotest.Config{PIN: pin, AlwaysUV: true}, with(nil, nil, nil), []string{pin}, []string{pin}},
		"nothing is demanded":  {fidotest.Config{Firmware: fidotest.CTAP20}, with(nil, boolean(false), nil), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, tt.config, func(t *testing.T, r *rig) {
				tok, e := enroll(t, r.handler(tt.set), 0, tt.enrolls...)
				got, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(tt.unlocks...)...), opener(e.Passphrase), strip(t, tok))
				wantUnlocked(t, got, err, e)
			})
		})
	}
}

// A key that began to verify always (alwaysUv switched on after the enrolment).
func TestKeyDemandsMoreThanAtEnrollment(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, e := enroll(t, r.handler(withoutPIN), 0)
		r.key.Configure(func(c *fidotest.Config) { c.AlwaysUV = true })
		_, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), opener(e.Passphrase), tok)
		wantError(t, err, tokens.ErrWrongKey, "demands one now")
	})
}

func TestTokensThatAreNotTried(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		tok, _ := enroll(t, r.handler(), 3, pin)
		future := change(t, tok, "fido2-future", `"x"`)
		broken := change(t, tok, memberSalt, `""`)
		broken.ID = 4
		before := r.key.Stats()
		_, err := unlock(t, r.handler(), tokentest.NewUI(t), nil, future, broken)
		wantError(t, err, tokens.ErrUnsupported, `): token uses a feature unknown to this version: member "fido2-future"`)
		wantError(t, err, tokens.ErrMalformed, `): member "fido2-salt"`)
		if r.key.Stats() != before {
			t.Error("the key was used")
		}
	})
}
