package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// answers are what a helper says to each method.
type answers map[string]helper.Reply

// pretend is Handler.Connect for a helper that gives these answers, whatever it is
// asked.
func pretend(a answers) func(context.Context) (helper.Conn, error) {
	methods := map[string]helper.Method{}
	for _, name := range []string{wire.MethodOpen, wire.MethodTokens, wire.MethodPublicKeys, wire.MethodLogin, wire.MethodPrivateKeys,
		wire.MethodDecrypt, wire.MethodDerive, wire.MethodWait, wire.MethodClose} {
		methods[name] = func(context.Context, *helper.Request) (*helper.Reply, error) {
			reply := a[name]
			var clones []secret.Secret
			for _, s := range reply.Secrets {
				clones = append(clones, s.Clone())
			}
			return &helper.Reply{Result: reply.Result, Secrets: clones}, nil
		}
	}
	return func(context.Context) (helper.Conn, error) { return helper.Pipe(wire.Program, methods), nil }
}

// TestImpossibleAnswersAreErrors: a module can make the helper say what it likes.
func TestImpossibleAnswersAreErrors(t *testing.T) {
	t.Parallel()
	point := make([]byte, 65)
	point[0] = uncompressed
	rsaToken, ecToken := textOf("pkcs11:id=%01", make([]byte, 256), ""), textOf("pkcs11:id=%01", point, "")
	list := func(list ...wire.Token) helper.Reply { return helper.Reply{Result: wire.Tokens{Tokens: list}} }
	key := func(keys ...wire.PrivateKey) helper.Reply { return helper.Reply{Result: keys} }
	usable := wire.Token{Label: []byte("\x1b[2Jcard"), Initialized: true}
	rsaKey, ecKey := wire.PrivateKey{ID: []byte{1}, Type: wire.RSA}, wire.PrivateKey{ID: []byte{1}, Type: wire.EC}
	for name, c := range map[string]struct {
		token string
		say   answers
		want  string
	}{
		"no secret":         {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(rsaKey)}, "sent no secret"},
		"empty secret":      {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(rsaKey), wire.MethodDecrypt: {Secrets: []secret.Secret{{}}}}, "sent no secret"},
		"two secrets":       {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(rsaKey), wire.MethodDecrypt: {Secrets: []secret.Secret{secretOf(t, "a"), secretOf(t, "b")}}}, "sent no secret"},
		"point off curve":   {ecToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(ecKey)}, "is not a point of P-256"},
		"other key":         {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(wire.PrivateKey{ID: []byte{2}, Type: wire.RSA})}, "has no RSA-2048 key"},
		"key of a new type": {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(wire.PrivateKey{ID: []byte{1}, Type: "pqc"})}, "has no RSA-2048 key"},
		"modulus too long":  {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: key(wire.PrivateKey{ID: []byte{1}, Type: wire.RSA, Modulus: bytes.Repeat([]byte{1}, 512)})}, "has no RSA-2048 key"},
		"tokens no list":    {rsaToken, answers{wire.MethodTokens: {Result: 5}}, "answer to tokens"},
		"keys no list":      {rsaToken, answers{wire.MethodTokens: list(usable), wire.MethodPrivateKeys: {Result: "x"}}, "answer to private-keys"},
		"nothing":           {rsaToken, answers{}, "not present"},
		"twins":             {rsaToken, answers{wire.MethodTokens: list(usable, usable), wire.MethodPrivateKeys: key()}, "has no RSA-2048 key"},
		"not set up":        {rsaToken, answers{wire.MethodTokens: list(wire.Token{})}, "not present"},
		"no PIN, locked":    {rsaToken, answers{wire.MethodTokens: list(wire.Token{Initialized: true, LoginRequired: true, PINLocked: true})}, "is locked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := (&Handler{Connect: pretend(c.say)}).Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{token(0, c.token)}}, tokentest.NewUI(t))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestMissingHelperIsNotBuilt(t *testing.T) {
	t.Parallel()
	_, err := new(Handler).Devices(t.Context()) // nothing lies beside a test binary
	if !errors.Is(err, tokens.ErrNotBuilt) || !strings.Contains(err.Error(), wire.Program) {
		t.Errorf("%v", err)
	}
}

func TestTextsOfModulesAreMadePrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"CKR_OK":                    "CKR_OK",
		"a\nb":                      `a\nb`,
		"\x1b[2J\u202e":             `\x1b[2J\u202e`,
		"Büro":                      "Büro",
		strings.Repeat("ü", 1000):   strings.Repeat("ü", 150) + "…",
		"\xff" + string(rune(0x85)): `\xff\u0085`,
	} {
		if got := clean(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
