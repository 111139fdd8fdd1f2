package fido2

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// TestEnrolAndUnlock is the table of what is asked for, what the key can do, and
// what comes out of it.
func TestEnrollAndUnlock(t *testing.T) {
	yes, no := boolean(true), boolean(false)
	a, b := fidotest.CTAP21, fidotest.CTAP20
	for _, tt := range []struct {
		name     string
		config   fidotest.Config
		set      func(*Handler)
		requires string
		enrolled string // answers at enrolment
		unlocks  string // answers at unlock
		touches  int    // at enrolment and at unlock, together
	}{
		{"A, defaults", fidotest.Config{Firmware: a, PIN: pin}, with(nil, nil, nil), "PIN, touch", pin, pin, 4},
		{"B, defaults", fidotest.Config{Firmware: b, PIN: pin}, with(nil, nil, nil), "PIN, touch", pin, pin, 4},
		{"A, no PIN set", fidotest.Config{Firmware: a}, with(nil, nil, nil), "touch", "", "", 4},
		{"A, touch alone", fidotest.Config{Firmware: a, PIN: pin}, with(no, yes, no), "touch", "", "", 4},
		// B wants the PIN for the credential; the secret is the one without.
		{"B, touch alone", fidotest.Config{Firmware: b, PIN: pin}, with(no, yes, no), "touch", pin, "", 4},
		{"A, PIN alone becomes PIN and touch", fidotest.Config{Firmware: a, PIN: pin}, with(yes, no, no), "PIN, touch", pin, pin, 4},
		{"B, PIN alone", fidotest.Config{Firmware: b, PIN: pin}, with(yes, no, no), "PIN", pin, pin, 1},
		{"B, nothing", fidotest.Config{Firmware: b}, with(no, no, no), "", "", "", 1},
		{"A, fingerprint", fidotest.Config{Firmware: a, BuiltInUV: true}, with(no, yes, yes), "user verification, touch", "", "", 4},
		{"A, PIN and fingerprint", fidotest.Config{Firmware: a, PIN: pin, BuiltInUV: true}, with(yes, yes, yes),
			"PIN, user verification, touch", pin, pin, 4},
		{"A, always UV, no reader", fidotest.Config{Firmware: a, PIN: pin, AlwaysUV: true}, with(no, yes, no), "PIN, touch", pin, pin, 4},
		{"A, always UV, reader", fidotest.Config{Firmware: a, PIN: pin, AlwaysUV: true, BuiltInUV: true}, with(no, yes, no),
			"user verification, touch", "", "", 4},
		{"longest credential id", fidotest.Config{PIN: pin, CredentialIDSize: 1023}, with(nil, nil, nil), "PIN, touch", pin, pin, 4},
		{"EdDSA", fidotest.Config{PIN: pin}, func(h *Handler) { _ = h.setAlgorithm("eddsa") }, "PIN, touch", pin, pin, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBoth(t, tt.config, func(t *testing.T, r *rig) {
				tok, e := enroll(t, r.handler(tt.set), 2, strings.Fields(tt.enrolled)...)
				if got := strings.Join(e.Requires, ", "); got != tt.requires {
					t.Errorf("requires %q, want %q (notes %q)", got, tt.requires, e.Notes)
				}
				ui := tokentest.NewUI(t, tokentest.Typed(strings.Fields(tt.unlocks)...)...)
				got, err := unlock(t, r.handler(), ui, opener(e.Passphrase), tok)
				wantUnlocked(t, got, err, e)
				if s := r.key.Stats(); s.Touches != tt.touches || s.WrongPINs != 0 {
					t.Errorf("%d touches, want %d; %d wrong PINs", s.Touches, tt.touches, s.WrongPINs)
				}
			})
		})
	}
}

func TestLabelIsTheUsersOrTheProduct(t *testing.T) {
	t.Parallel()
	bench := fidotest.NewBench(fidotest.New(fidotest.Config{Product: "SoloKey 4"}))
	tok, e := enroll(t, &Handler{Dial: bench.Dial}, 1)
	d, err := (&Handler{}).Describe(tok)
	if err != nil || e.Label != "SoloKey 4" || d.Label != "SoloKey 4" || d.Detail.(detail).Device != "SoloKey 4" {
		t.Errorf("%q, %+v, %v", e.Label, d, err)
	}
}

// What was asked for by name is never left out.
func TestUnmetRequestsAreRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config fidotest.Config
		set    func(*Handler)
		want   string
	}{
		"PIN":         {fidotest.Config{Product: "K"}, with(boolean(true), nil, nil), "a PIN was asked for and K has no PIN set"},
		"fingerprint": {fidotest.Config{Product: "K"}, with(nil, nil, boolean(true)), "user verification was asked for and K is not set up"},
		"touch": {fidotest.Config{Product: "K", OptionLies: map[string]*bool{"up": boolean(false)}}, with(nil, boolean(true), nil),
			"a touch was asked for and K cannot tell a touch"},
	} {
		k := fidotest.New(tt.config)
		h := &Handler{Dial: fidotest.NewBench(k).Dial}
		tt.set(h)
		_, err := h.Enroll(t.Context(), request(), tokentest.NewUI(t))
		wantError(t, err, tokens.ErrUsage, tt.want)
		if k.Stats().Creations > 0 {
			t.Errorf("%s: a credential was made", name)
		}
	}
}

// A key that says it has a fingerprint reader and has none answers as if the user
// had been verified (firmware B) or refuses; a token must not claim it.
func TestLyingAboutUserVerification(t *testing.T) {
	for _, firmware := range []fidotest.Firmware{fidotest.CTAP21, fidotest.CTAP20} {
		onBoth(t, fidotest.Config{Firmware: firmware, OptionLies: map[string]*bool{"uv": boolean(true)}}, func(t *testing.T, r *rig) {
			e, err := r.handler(with(boolean(false), nil, boolean(true))).Enroll(t.Context(), request(), tokentest.NewUI(t))
			if err == nil {
				e.Passphrase.Wipe()
				t.Fatal("enrolled with user verification that did not happen")
			}
		})
	}
}

// A key that hides its PIN, or says that it needs no touch and wants one.
func TestLyingAboutOptions(t *testing.T) {
	for name, lies := range map[string]map[string]*bool{
		"PIN hidden":          {"clientPin": nil},
		"up denied":           {"up": boolean(false)},
		"rk unknown":          {"rk": nil},
		"permissions denied":  {"pinUvAuthToken": nil},
		"always UV pretended": {"alwaysUv": boolean(true)},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, fidotest.Config{PIN: pin, OptionLies: lies}, func(t *testing.T, r *rig) {
				var answers []string
				if name != "PIN hidden" {
					answers = []string{pin}
				}
				tok, e := enroll(t, r.handler(), 1, answers...)
				got, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(answers...)...), opener(e.Passphrase), tok)
				wantUnlocked(t, got, err, e)
			})
		})
	}
}

func TestFaultyKeysAreNotEnrolled(t *testing.T) {
	for fault, want := range map[fidotest.Fault]string{
		fidotest.NotCBOR: "does not answer as a FIDO2 key does", fidotest.WrongCBOR: "creating a credential",
		fidotest.ShortSecret: "deriving the key", fidotest.NoSecret: "deriving the key",
		fidotest.EmptyID: "creating a credential", fidotest.HugeID: "creating a credential",
		fidotest.FickleSecret: "gives another key than a moment ago",
	} {
		t.Run(want, func(t *testing.T) {
			onBoth(t, fidotest.Config{Fault: fault}, func(t *testing.T, r *rig) {
				e, err := r.handler().Enroll(t.Context(), request(), tokentest.NewUI(t))
				if err == nil {
					e.Passphrase.Wipe()
					t.Fatal("enrolled")
				}
				if !strings.Contains(err.Error(), want) && fault != fidotest.NotCBOR {
					t.Errorf("%v, want %q", err, want)
				}
			})
		})
	}
}

func TestKeysWithoutHMACSecret(t *testing.T) {
	onBoth(t, fidotest.Config{NoHMACSecret: true}, func(t *testing.T, r *rig) {
		_, err := r.handler().Enroll(t.Context(), request(), tokentest.NewUI(t))
		if err == nil || !strings.Contains(err.Error(), "lacks the hmac-secret extension") {
			t.Error(err)
		}
	})
}

func TestUnknownAlgorithm(t *testing.T) {
	onBoth(t, fidotest.Config{}, func(t *testing.T, r *rig) {
		h := r.handler(func(h *Handler) { _ = h.setAlgorithm("rs256") })
		_, err := h.Enroll(t.Context(), request(), tokentest.NewUI(t))
		wantError(t, err, tokens.ErrUsage, "--fido2-credential-algorithm=")
	})
}

func TestEnrollmentAsksForAWrongPINAgain(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		ui := tokentest.NewUI(t, tokentest.Typed("654321", "12", pin)...)
		e, err := r.handler().Enroll(t.Context(), request(), ui)
		if err != nil {
			t.Fatal(err)
		}
		e.Passphrase.Wipe()
		var asked []string
		for _, p := range ui.Prompts() {
			asked = append(asked, fmt.Sprintf("%d:%d", p.Attempt, p.TriesLeft))
		}
		if !slices.Equal(asked, []string{"0:8", "1:7", "2:7"}) { // a PIN of two characters is not sent
			t.Errorf("asked %q", asked)
		}
	})
}

func TestEnrollmentEndsWhenThePINIsLocked(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		_, err := r.handler().Enroll(t.Context(), request(), tokentest.NewUI(t, tokentest.Typed("wrong", "wrong", "wrong")...))
		wantError(t, err, tokens.ErrLocked, "unplug it and plug it in again")
	})
}

// Without a person there is one try: a credential is not tried again and again.
func TestEnrollmentTriesACredentialOnce(t *testing.T) {
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		ui := tokentest.NewUI(t, tokentest.Answer{Text: "wrong"}, tokentest.Answer{Err: tokens.ErrNoPrompt})
		_, err := r.handler().Enroll(t.Context(), request(), ui)
		wantError(t, err, tokens.ErrWrongPIN, "")
		if n := r.key.Stats().WrongPINs; n != 1 {
			t.Errorf("%d tries", n)
		}
	})
}

func TestEnrollmentGivesUpOnATouchThatNeverComes(t *testing.T) {
	onBoth(t, fidotest.Config{TouchTimeout: 50 * time.Millisecond}, func(t *testing.T, r *rig) {
		r.key.SetTouch(fidotest.Touch{Never: true})
		_, err := r.handler().Enroll(t.Context(), request(), tokentest.NewUI(t))
		wantError(t, err, tokens.ErrTimeout, "was not touched in time")
		if n := r.key.Stats().TimedOut; n != touchRequests {
			t.Errorf("asked %d times, want %d", n, touchRequests)
		}
	})
}

func TestParametersInCrypttab(t *testing.T) {
	dir := t.TempDir()
	saltFile := filepath.Join(dir, "salt")
	if err := os.WriteFile(saltFile, []byte(strings.Repeat("0123456789abcdef", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
		h := r.handler(func(h *Handler) { h.SaltFile, h.ParametersInHeader = saltFile, boolean(false) })
		e, err := h.Enroll(t.Context(), request(), tokentest.NewUI(t, tokentest.Typed(pin)...))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Passphrase.Wipe()
		if len(e.Token) != 0 || !slices.Contains(e.Crypttab, "fido2-pin=yes") || len(e.Notes) != 1 {
			t.Errorf("token %s, crypttab %q, notes %q", e.Token, e.Crypttab, e.Notes)
		}
		u := r.handler()
		for _, word := range e.Crypttab[1:] { // behind fido2-device=auto
			name, value, _ := strings.Cut(word, "=")
			i := slices.IndexFunc(u.Options(), func(o tokens.Option) bool { return o.Name == name && o.Place&tokens.Crypttab != 0 })
			if err := u.Options()[i].Set(value); err != nil {
				t.Fatal(err)
			}
		}
		salt := secret.Copy([]byte(strings.Repeat("0123456789abcdef", 2)))
		defer salt.Wipe()
		got, err := u.Unlock(t.Context(), &tokens.UnlockRequest{Volume: volume(), KeyData: salt, Opens: opener(e.Passphrase)},
			tokentest.NewUI(t, tokentest.Typed(pin)...))
		if err == nil {
			defer got.Passphrase.Wipe()
		}
		wantUnlocked(t, got, err, e)
		if got.Token.ID != -1 {
			t.Errorf("token %d", got.Token.ID)
		}
	})
}

func TestRequestsThatCannotBeServed(t *testing.T) {
	t.Parallel()
	no := boolean(false)
	for name, tt := range map[string]struct {
		h    *Handler
		n    int
		want string
	}{
		"no salt file":      {&Handler{ParametersInHeader: no}, 1, "--fido2-salt-file="},
		"salt for two":      {&Handler{SaltFile: "/x"}, 2, "is for one volume"},
		"no volume at all":  {&Handler{}, 0, "no volume"},
		"no salt, two more": {&Handler{ParametersInHeader: no}, 2, "--fido2-salt-file="},
	} {
		var reqs []*tokens.EnrollRequest
		for range tt.n {
			reqs = append(reqs, request())
		}
		_, err := tt.h.EnrollAll(t.Context(), reqs, tokentest.NewUI(t))
		if !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for want, h := range map[string]*Handler{
		"FIDO2 key, PIN, touch":                         {},
		"FIDO2 key home, touch, user verification":      {Device: "home", WithPIN: boolean(false), WithUV: boolean(true)},
		"FIDO2 key, PIN, touch, parameters in crypttab": {SaltFile: "/salt", ParametersInHeader: boolean(false)},
	} {
		got, err := h.Plan(request())
		if words := strings.Split(want, ", "); err != nil || !slices.Equal(slices.Sorted(slices.Values(strings.Split(got, ", "))), slices.Sorted(slices.Values(words))) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

func TestNotesAboutOldSystemd(t *testing.T) {
	t.Parallel()
	bench := fidotest.NewBench(fidotest.New(fidotest.Config{PIN: pin}))
	other := luks2.Token{ID: 7, Type: Type, Raw: readFixture(t, "systemd257-fido2-up").Token}
	for compat, want := range map[int]int{262: 0, 250: 1, 248: 2} {
		req := request(other)
		req.Compat = compat
		e, err := (&Handler{Dial: bench.Dial}).Enroll(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(pin)...))
		if err != nil {
			t.Fatal(err)
		}
		e.Passphrase.Wipe()
		if len(e.Notes) != want {
			t.Errorf("compat %d: notes %q", compat, e.Notes)
		}
	}
}
