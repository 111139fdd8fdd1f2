package fido2

import (
	"fmt"
	"testing"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

func TestSameKeyTwiceOnAVolume(t *testing.T) {
	uv := with(boolean(true), nil, boolean(true)) // hides behind credProtect
	for name, tt := range map[string]struct {
		config fidotest.Config
		set    func(*Handler)
	}{
		"CTAP 2.1": {fidotest.Config{PIN: pin}, with(nil, nil, nil)},
		"CTAP 2.0": {fidotest.Config{PIN: pin, Firmware: fidotest.CTAP20}, with(nil, nil, nil)},
		"hidden":   {fidotest.Config{PIN: pin, BuiltInUV: true}, uv},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, tt.config, func(t *testing.T, r *rig) {
				tok, _ := enroll(t, r.handler(tt.set), 4, pin)
				made := r.key.Stats().Creations
				var answers []string
				if name == "hidden" {
					answers = []string{pin}
				}
				_, err := r.handler(tt.set).Enroll(t.Context(), request(tok), tokentest.NewUI(t, tokentest.Typed(answers...)...))
				wantError(t, err, tokens.ErrDuplicate, `keyslot 4 (fido2`)
				wantError(t, err, tokens.ErrDuplicate, "; --allow-duplicate enrols it once more")
				if r.key.Stats().Creations != made {
					t.Error("a credential was made")
				}
				again := r.handler(tt.set, func(h *Handler) { h.AllowDuplicate = true })
				e, err := again.Enroll(t.Context(), request(tok), tokentest.NewUI(t, tokentest.Typed(pin)...))
				if err != nil {
					t.Fatal(err)
				}
				e.Passphrase.Wipe()
			})
		})
	}
}

func TestSeveralKeysPluggedIn(t *testing.T) {
	t.Parallel()
	home := fidotest.New(fidotest.Config{Product: "Key A"})
	office := fidotest.New(fidotest.Config{Product: "Key B"})
	bench := fidotest.NewBench(home, office)
	_, err := (&Handler{Dial: bench.Dial}).Enroll(t.Context(), request(), tokentest.NewUI(t))
	wantError(t, err, tokens.ErrSeveralDevices, "/dev/hidraw0 (Key A), /dev/hidraw1 (Key B)")

	tok, _ := enroll(t, &Handler{Dial: bench.Dial, Device: "key a"}, 1)
	if home.Stats().Creations != 1 || office.Stats().Creations != 0 {
		t.Error("the product name chose the wrong key")
	}
	enrollWith := func(h *Handler, list ...luks2.Token) error {
		e, err := h.Enroll(t.Context(), request(list...), tokentest.NewUI(t))
		if err == nil {
			e.Passphrase.Wipe()
		}
		return err
	}
	// A backup key beside one that is enrolled: only one can be meant.
	if err := enrollWith(&Handler{Dial: bench.Dial}, tok); err != nil || office.Stats().Creations != 1 {
		t.Errorf("auto beside an enrolled key: %v", err)
	}
	if err := enrollWith(&Handler{Dial: bench.Dial, Device: fidotest.Path(1)}); err != nil || office.Stats().Creations != 2 {
		t.Errorf("by path: %v", err)
	}
	if err := enrollWith(&Handler{Dial: bench.Dial, Device: "Key A", AllowDuplicate: true}, tok); err != nil || home.Stats().Creations != 2 {
		t.Errorf("by label: %v", err)
	}
	wantError(t, enrollWith(&Handler{Dial: bench.Dial, Device: "Key C"}), tokens.ErrNoDevice, `"Key C"`)
	wantError(t, enrollWith(&Handler{Dial: bench.Dial, Device: "/dev/hidraw9"}), tokens.ErrNoDevice, "/dev/hidraw9")
}

// Several volumes: one PIN, one credential, two salts in an assertion.
func TestSeveralVolumes(t *testing.T) {
	for n := 1; n <= 5; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			onBoth(t, fidotest.Config{PIN: pin}, func(t *testing.T, r *rig) {
				var reqs []*tokens.EnrollRequest
				for i := range n {
					req := request()
					req.Volume.UUID = fmt.Sprintf("3f1c1d5e-6f0c-4b5e-9d0e-%012d", i)
					reqs = append(reqs, req)
				}
				list, err := r.handler().EnrollAll(t.Context(), reqs, tokentest.NewUI(t, tokentest.Typed(pin)...))
				if err != nil || len(list) != n {
					t.Fatalf("%d results, %v", len(list), err)
				}
				if s := r.key.Stats(); s.Touches != 1+2*((n+1)/2) || s.Creations != 1 {
					t.Errorf("%d touches, %d credentials for %d volumes", s.Touches, s.Creations, n)
				}
				for i, e := range list {
					defer e.Passphrase.Wipe()
					for _, other := range list[:i] {
						if e.Passphrase.Equal(other.Passphrase) {
							t.Error("two volumes have the same passphrase")
						}
					}
					tok := luks2.Token{ID: i, Type: Type, Raw: e.Token}
					got, err := unlock(t, r.handler(), tokentest.NewUI(t, tokentest.Typed(pin)...), opener(e.Passphrase), tok)
					wantUnlocked(t, got, err, e)
				}
			})
		})
	}
}
