package pkcs11

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// TestVolumesOfSystemdAreOpened opens the fixtures themselves: their header, their
// keyslot.
func TestVolumesOfSystemdAreOpened(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := fixtureStore(t)
			device, err := luks2.Open(testenv.Image(t, filepath.Join("testdata", name+".img.zst")), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer device.Close()
			header, err := device.Header(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			h := &Handler{Connect: connect(t, store.Env...)}
			got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: header.Tokens,
				Opens: func(ctx context.Context, tok luks2.Token, passphrase secret.Secret) error {
					key, err := device.OpenKeyslot(ctx, tok.Keyslots[0], passphrase)
					if err == nil {
						key.Wipe()
					}
					return err
				}}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
			if err != nil {
				t.Fatal(err)
			}
			defer got.Passphrase.Wipe()
			if want := readVolume(t, name).Passphrase; string(got.Passphrase.Bytes()) != want {
				t.Error("the passphrase is not the one that the fixture notes")
			}
		})
	}
}

// withURI is a fixture's token with another URI.
func withURI(t testing.TB, name, uri string) string {
	t.Helper()
	text, err := setMembers(readVolume(t, name).Token, []member{{memberURI, uri}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestURIsOfAllKindsUnlock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		uri  string
		want error
	}{
		{"pkcs11:token=luksmith;object=rsa;type=cert", nil}, // systemd 252 wrote it and could not use it
		{"pkcs11:token=luksmith;object=rsa;type=public", nil},
		{"pkcs11:token=luksmith;id=%01;type=private", nil},
		{"pkcs11:manufacturer=SoftHSM%20project;model=SoftHSM%20v2", nil}, // two keys: systemd refuses
		{"pkcs11:id=%01", nil},
		{"pkcs11:serial=1de865a38bd47acc;slot-id=12345;library-description=x", nil},
		{"pkcs11:token=luksmith;id=%01?module-path=/nonexistent/evil.so&pin-value=9999", nil},
		{"pkcs11:token=other;id=%01", tokens.ErrNoDevice},
		{"pkcs11:serial=ffff", tokens.ErrNoDevice},
		{"pkcs11:token=luksmith;x-vendor=1", tokens.ErrUnsupported},
	} {
		t.Run(c.uri, func(t *testing.T) {
			t.Parallel()
			answers := []string{fixtureToken.PIN}
			if c.want != nil {
				answers = nil
			}
			h := &Handler{Connect: connect(t, fixtureStore(t).Env...)}
			got, err := unlock(t, h, withURI(t, "systemd257-rsa", c.uri), answers...)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if want := readVolume(t, "systemd257-rsa").Passphrase; err == nil && string(got.Bytes()) != want {
				t.Error("another passphrase came back")
			}
		})
	}
}

func TestKeyThatIsNotOnTheTokenIsAsIfTheTokenWereAbsent(t *testing.T) {
	t.Parallel()
	h := &Handler{Connect: connect(t, fixtureStore(t).Env...)}
	_, err := unlock(t, h, withURI(t, "systemd257-rsa", "pkcs11:token=luksmith;id=%09"), fixtureToken.PIN)
	if !errors.Is(err, tokens.ErrNoDevice) || !strings.Contains(err.Error(), "luksmith has no RSA-2048 key pkcs11:token=luksmith;id=%09") {
		t.Errorf("%v", err)
	}
	// The token is still there and still lacks the key: nobody is asked again.
	if _, err = unlock(t, h, withURI(t, "systemd257-rsa", "pkcs11:token=luksmith;id=%09")); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("the second time: %v", err)
	}
}

// TestEveryCandidateIsTried has two keys of the same kind, and tokens in the header
// that do not say which of them they are for: systemd gives up.
func TestEveryCandidateIsTried(t *testing.T) {
	t.Parallel()
	store := cardWith(t, newEC(t, elliptic.P384()), newEC(t, elliptic.P256()), newEC(t, elliptic.P256()))
	h := &Handler{Connect: connect(t, store.Env...)}
	tried := 0
	for _, id := range []string{"02", "03"} {
		h.TokenURI = "pkcs11:token=card;id=%" + id
		e := enroll(t, h, 262, card.PIN)
		raw, err := setMembers(e.Token, []member{{memberURI, "pkcs11:token=card"}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(raw))},
			Opens: func(ctx context.Context, tok luks2.Token, passphrase secret.Secret) error {
				tried++
				return opens(e.Passphrase)(ctx, tok, passphrase)
			}}, tokentest.NewUI(t, tokentest.Typed(card.PIN)...))
		if err != nil {
			t.Fatal(err)
		}
		got.Passphrase.Wipe()
	}
	if tried != 3 { // the first key that the card lists at once, the other one second
		t.Errorf("%d keys were tried for two tokens, want 3", tried)
	}
}

// TestTwoTokensWithTheSameLabels: systemd gives up when there are two.
func TestTwoTokensWithTheSameLabels(t *testing.T) {
	t.Parallel()
	first, second := testenv.Token{Label: "card", PIN: "111111"}, testenv.Token{Label: "twin", PIN: "222222"}
	store := testenv.NewSoftHSM(t)
	for _, tok := range []testenv.Token{first, second} {
		store.AddToken(t, tok)
		store.AddKey(t, tok, testenv.Key{ID: "01", Label: "disk", Private: newEC(t, elliptic.P256())})
	}
	h := &Handler{Connect: connect(t, store.Env...), TokenURI: auto}
	_, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 262}, tokentest.NewUI(t))
	if !errors.Is(err, tokens.ErrSeveralDevices) || strings.Count(err.Error(), "id=%01") != 2 {
		t.Errorf("auto: %v, want both listed", err)
	}
	h.TokenURI = "pkcs11:token=twin"
	e := enroll(t, h, 262, second.PIN)
	vague, err := setMembers(e.Token, []member{{memberURI, "pkcs11:object=disk"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the URI names one", func(t *testing.T) {
		if _, err := unlock(t, &Handler{Connect: h.Connect}, string(e.Token), second.PIN); err != nil {
			t.Error(err)
		}
	})
	t.Run("the URI names both", func(t *testing.T) {
		pins := map[string]string{"PIN of card": first.PIN, "PIN of twin": second.PIN}
		ui := &answering{t: t, pins: pins}
		got, err := (&Handler{Connect: h.Connect}).Unlock(t.Context(), &tokens.UnlockRequest{
			Tokens: []luks2.Token{token(0, string(vague))}, Opens: opens(e.Passphrase)}, ui)
		if err != nil {
			t.Fatal(err)
		}
		got.Passphrase.Wipe()
	})
	t.Run("one PIN for both", func(t *testing.T) {
		// As $PIN would: the first token refuses it, so it is not sent to the second.
		ui := &answering{t: t, pins: map[string]string{"PIN of card": "999999", "PIN of twin": "999999"}}
		_, err := (&Handler{Connect: h.Connect}).Unlock(t.Context(), &tokens.UnlockRequest{
			Tokens: []luks2.Token{token(0, string(vague))}, Opens: opens(e.Passphrase)}, ui)
		second := "card"
		if len(ui.asked) > 0 && ui.asked[0] == "PIN of card 0" {
			second = "twin"
		}
		asked := slices.DeleteFunc(ui.asked, func(q string) bool { return !strings.Contains(q, second) })
		want := []string{"PIN of " + second + " 0", "PIN of " + second + " 1", "PIN of " + second + " 1", "PIN of " + second + " 2"} // the first answer is not sent
		if !errors.Is(err, tokens.ErrWrongPIN) || !slices.Equal(asked, want) {
			t.Errorf("%v, questions %q, want %q", err, asked, want)
		}
	})
}

// answering is a person who reads the question. With a wrong PIN it gives up at the
// second attempt, as a credential has nothing more to say.
type answering struct {
	t     *testing.T
	pins  map[string]string
	asked []string // texts and attempts of questions
}

func (a *answering) Ask(_ context.Context, p tokens.Prompt) (secret.Secret, error) {
	a.asked = append(a.asked, fmt.Sprintf("%s %d", p.Text, p.Attempt))
	if p.Attempt > 0 {
		return secret.Copy([]byte("88888888")), nil
	}
	return secret.Copy([]byte(a.pins[p.Text])), nil
}

func (a *answering) Show(string) func() { return func() {} }
func (a *answering) Note(text string)   { a.t.Error("note: ", text) }

func TestPINSourcesOfTheAdministrator(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte(fixtureToken.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	raw := string(readVolume(t, "systemd257-ec").Token)
	for _, c := range []struct {
		query   string
		answers []string
		note    string
	}{
		{"pin-value=1234", nil, ""},
		{"pin-value=%31%32%33%34", nil, ""},
		{"pin-source=" + file, nil, ""},
		{"pin-source=file:" + file, nil, ""},
		{"pin-source=file://" + file, nil, ""},
		{"pin-value=wrong", []string{fixtureToken.PIN}, ""},
		{"pin-source=/nonexistent", []string{fixtureToken.PIN}, "reading pin-source"},
		{"pin-source=%7Ccat%20" + file, []string{fixtureToken.PIN}, "neither an absolute path nor a file: URL"},
		{"module-path=/nonexistent.so", []string{fixtureToken.PIN}, "module-path is ignored"},
	} {
		t.Run(c.query, func(t *testing.T) {
			t.Parallel()
			h := &Handler{Connect: connect(t, fixtureStore(t).Env...), UnlockURI: "pkcs11:token=luksmith;id=%02;type=private?" + c.query}
			ui := tokentest.NewUI(t, tokentest.Typed(c.answers...)...)
			got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, raw)}}, ui)
			if err != nil {
				t.Fatal(err)
			}
			got.Passphrase.Wipe()
			if notes := strings.Join(ui.Notes(), "\n"); !strings.Contains(notes, c.note) || (c.note == "") != (notes == "") {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			if p := ui.Prompts(); len(p) == 1 && p[0].Attempt != 1 && strings.Contains(c.query, "wrong") {
				t.Errorf("the question does not say that the configured PIN was wrong: %+v", p[0])
			}
		})
	}
}

// TestAdministratorNarrowsTheURI: what crypttab says is a further condition, not
// another key: a card that the header does not name never sees the PIN.
func TestAdministratorNarrowsTheURI(t *testing.T) {
	t.Parallel()
	connect := connect(t, fixtureStore(t).Env...)
	raw := withURI(t, "systemd257-rsa", "pkcs11:serial=lost;id=%01")
	if _, err := unlock(t, &Handler{Connect: connect}, raw); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("the lost card: %v", err)
	}
	h := &Handler{Connect: connect, UnlockURI: "pkcs11:token=luksmith;object=rsa"}
	if _, err := unlock(t, h, raw); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("another card than the header's: %v", err)
	}
	touched := &Handler{UnlockURI: "pkcs11:id=%02", Connect: func(context.Context) (helper.Conn, error) {
		t.Error("a contradiction touches a card")
		return nil, helper.ErrNotInstalled
	}}
	if _, err := unlock(t, touched, raw); !errors.Is(err, tokens.ErrOtherDevice) || !strings.Contains(err.Error(), "asks for id=") {
		t.Errorf("a contradiction: %v", err)
	}
	anyCard := withURI(t, "systemd257-rsa", "pkcs11:id=%01")
	if got, err := unlock(t, h, anyCard, fixtureToken.PIN); err != nil || string(got.Bytes()) != readVolume(t, "systemd257-rsa").Passphrase {
		t.Errorf("the card that crypttab names: %v", err)
	}
	h.UnlockURI = "nonsense"
	if _, err := unlock(t, h, raw); !errors.Is(err, tokens.ErrUsage) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestKeyFilesUnlockVolumesWithoutTokens(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := readVolume(t, name)
			r, err := parse(v.Token)
			if err != nil {
				t.Fatal(err)
			}
			data := secret.Copy(r.key)
			defer data.Wipe()
			want := secret.Copy([]byte(v.Passphrase))
			defer want.Wipe()
			key := "rsa"
			if r.ec() {
				key = "ec"
			}
			h := &Handler{Connect: connect(t, fixtureStore(t).Env...), UnlockURI: "pkcs11:token=luksmith;object=" + key}
			got, err := h.Unlock(t.Context(), &tokens.UnlockRequest{KeyData: data, Opens: opens(want)}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
			if err != nil {
				t.Fatal(err)
			}
			got.Passphrase.Wipe()
			if got.Token.ID != -1 {
				t.Errorf("token %d, want -1", got.Token.ID)
			}
		})
	}
	t.Run("too short", func(t *testing.T) {
		data := secret.Copy([]byte("a passphrase"))
		defer data.Wipe()
		_, err := new(Handler).Unlock(t.Context(), &tokens.UnlockRequest{KeyData: data}, tokentest.NewUI(t))
		if err == nil || !strings.Contains(err.Error(), "key file has 12 bytes") {
			t.Error(err)
		}
	})
}

func TestTokenLackedOnceIsRememberedWhilePluggedIn(t *testing.T) {
	t.Parallel()
	store := fixtureStore(t)
	h := &Handler{Connect: connect(t, store.Env...)}
	raw := string(readVolume(t, "systemd257-rsa").Token)
	if _, err := unlock(t, h, raw, "0000", "0001", "0002"); !errors.Is(err, tokens.ErrWrongPIN) {
		t.Fatalf("three wrong PINs: %v", err)
	}
	if _, err := unlock(t, h, raw); !errors.Is(err, tokens.ErrWrongPIN) {
		t.Errorf("the same token again: %v, and nobody should be asked", err)
	}
	if _, err := unlock(t, &Handler{Connect: h.Connect}, raw, fixtureToken.PIN); err != nil {
		t.Errorf("a new run: %v", err)
	}
}
