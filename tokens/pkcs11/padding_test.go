package pkcs11

import (
	"context"
	"errors"
	"testing"

	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// TestPaddingErrorLooksLikeAWrongKey is about what an attacker with a changed
// header can see: nothing. SoftHSM reports a padding error as a failure, and a
// well-padded wrong secret not at all.
func TestPaddingErrorLooksLikeAWrongKey(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"systemd257-rsa", "systemd262-rsa-oaep"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connect := connect(t, fixtureStore(t).Env...)
			v := readVolume(t, name)
			r, err := parse(v.Token)
			if err != nil {
				t.Fatal(err)
			}
			broken := append([]byte{}, r.key...)
			broken[100] ^= 1
			padded, err := setMembers(v.Token, []member{{memberKey, broken}})
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, raw := range []string{string(padded), string(v.Token)} {
				tried := 0
				_, err := (&Handler{Connect: connect}).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, raw)},
					Opens: func(_ context.Context, _ luks2.Token, passphrase secret.Secret) error {
						if tried++; passphrase.Len() != len(v.Passphrase) {
							t.Errorf("the passphrase has %d bytes, want %d", passphrase.Len(), len(v.Passphrase))
						}
						return tokens.ErrWrongKey
					}}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
				if !errors.Is(err, tokens.ErrWrongKey) || tried != 1 {
					t.Errorf("%v after %d tries", err, tried)
				}
				texts = append(texts, err.Error())
			}
			if texts[0] != texts[1] {
				t.Errorf("padding error: %s\nwrong key: %s", texts[0], texts[1])
			}
		})
	}
}

// TestRefusedDecryptionGivesRandomBytes: what stands in for the secret is no constant,
// by which somebody could tell that the padding was wrong.
func TestRefusedDecryptionGivesRandomBytes(t *testing.T) {
	t.Parallel()
	connect := connect(t, fixtureStore(t).Env...)
	v := readVolume(t, "systemd262-rsa-oaep")
	r, err := parse(v.Token)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte{}, r.key...)
	broken[100] ^= 1
	refused, err := setMembers(v.Token, []member{{memberKey, broken}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		_, _ = (&Handler{Connect: connect}).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, string(refused))},
			Opens: func(_ context.Context, _ luks2.Token, passphrase secret.Secret) error {
				seen[string(passphrase.Bytes())] = true
				return tokens.ErrWrongKey
			}}, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	}
	if len(seen) != 3 {
		t.Errorf("%d different passphrases of 3", len(seen))
	}
}
