package pkcs11

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// TestKeysOfAllSizes enrols, unlocks, and has OpenSC's pkcs11-tool recover the
// passphrase from the stored blob.
func TestKeysOfAllSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key    crypto.Signer
		compat int
		kind   string
		form   wire.Padding
		note   string
	}{
		{newRSA(t, 2048), 252, "RSA-2048", wire.PKCS1, "systemd before 261"},
		{newRSA(t, 2048), 262, "RSA-2048", wire.OAEPSHA1, ""}, // SoftHSM knows no other hash
		{newRSA(t, 3072), 261, "RSA-3072", wire.OAEPSHA1, ""},
		{newRSA(t, 4096), 260, "RSA-4096", wire.PKCS1, "systemd before 261"},
		{newEC(t, elliptic.P256()), 256, "P-256", wire.PKCS1, ""},
		{newEC(t, elliptic.P384()), 262, "P-384", wire.PKCS1, ""},
		{newEC(t, elliptic.P521()), 262, "P-521", wire.PKCS1, ""},
	} {
		t.Run(fmt.Sprintf("%s for %d", c.kind, c.compat), func(t *testing.T) {
			t.Parallel()
			store := cardWith(t, c.key)
			h := &Handler{Connect: connect(t, store.Env...), TokenURI: auto}
			e := enroll(t, h, c.compat, card.PIN)
			r, err := parse(e.Token)
			if err != nil || r.kind() != c.kind || r.padding != c.form {
				t.Fatalf("%s, %s, %v in %s", r.kind(), r.padding, err, e.Token)
			}
			if !systemdTakes(r.text) || strings.Contains(r.text, "token=") || !strings.Contains(r.text, "serial=") ||
				!strings.HasSuffix(r.text, ";id=%01;type=private") {
				t.Errorf("URI %s: want the serial number and the id", r.text)
			}
			if notes := strings.Join(e.Notes, " "); !strings.Contains(notes, c.note) || (c.note == "") != (notes == "") {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			if e.Label != "card" || !slices.Equal(e.Crypttab, []string{"pkcs11-uri=auto"}) {
				t.Errorf("label %q, crypttab %q", e.Label, e.Crypttab)
			}
			got, err := unlock(t, &Handler{Connect: h.Connect}, string(e.Token), card.PIN)
			if err != nil || !got.Equal(e.Passphrase) {
				t.Errorf("unlocking: %v", err)
			}
			if text := opensc(t, store, card, r); text != string(e.Passphrase.Bytes()) {
				t.Error("pkcs11-tool recovers another passphrase")
			}
		})
	}
}

// opensc is the passphrase that pkcs11-tool gets out of a record.
func opensc(t *testing.T, store *testenv.SoftHSM, tok testenv.Token, r *record) string {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	args := []string{"--login", "--id", "01", "--input-file", in, "--output-file", out}
	input := r.key
	switch {
	case r.ec():
		// It wants the public key as SubjectPublicKeyInfo.
		input = spki(t, r.key)
		args = append(args, "--derive", "--mechanism", "ECDH1-DERIVE")
	case r.padding == wire.OAEPSHA1:
		args = append(args, "--decrypt", "--mechanism", "RSA-PKCS-OAEP", "--hash-algorithm", "SHA-1", "--mgf", "MGF1-SHA1")
	default:
		args = append(args, "--decrypt", "--mechanism", "RSA-PKCS")
	}
	if err := os.WriteFile(in, input, 0o600); err != nil {
		t.Fatal(err)
	}
	store.Tool(t, tok, args...)
	secret, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(secret)
}

func TestEllipticCurvesNeedSystemd256(t *testing.T) {
	t.Parallel()
	h := &Handler{Connect: connect(t, fixtureStore(t).Env...), TokenURI: "pkcs11:object=ec"}
	_, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 255}, tokentest.NewUI(t))
	if !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("%v", err)
	}
}

func TestChoosingTheKey(t *testing.T) {
	t.Parallel()
	connect := connect(t, fixtureStore(t).Env...)
	const device = "pkcs11:manufacturer=SoftHSM%20project;model=SoftHSM%20v2;serial=1de865a38bd47acc"
	for _, c := range []struct {
		uri    string
		want   error
		text   string
		stored string
	}{
		{auto, tokens.ErrUsage, "2 keys match: pkcs11:", ""},
		{"pkcs11:token=luksmith", tokens.ErrUsage, "id=%01 RSA-2048; ", ""},
		{"pkcs11:token=absent", tokens.ErrNoDevice, "no PKCS#11 token that matches", ""},
		{"pkcs11:id=%77", nil, "no public key or certificate of RSA 2048 to 4096 bits or P-256, P-384, P-521 that matches on luksmith", ""},
		{"pkcs11:object=rsa;type=cert", nil, "", device + ";id=%01;type=private"},
		{"pkcs11:token=luksmith;object=ec;type=public;slot-id=7", nil, "", "pkcs11:token=luksmith;id=%02;type=private"},
		{"pkcs11:serial=1de865a38bd47acc;id=%01;type=private", nil, "", "pkcs11:serial=1de865a38bd47acc;id=%01;type=private"},
		{"pkcs11:object=rsa?pin-value=1234&module-path=/x", nil, "", device + ";id=%01;type=private"},
	} {
		var answers []string
		if c.stored != "" && !strings.Contains(c.uri, "pin-value") {
			answers = []string{fixtureToken.PIN}
		}
		h := &Handler{Connect: connect, TokenURI: c.uri}
		e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 262}, tokentest.NewUI(t, tokentest.Typed(answers...)...))
		if err != nil {
			if c.want != nil && !errors.Is(err, c.want) || c.stored != "" || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v", c.uri, err)
			}
			continue
		}
		e.Passphrase.Wipe()
		if r, _ := parse(e.Token); r.text != c.stored {
			t.Errorf("%s is stored as %s, want %s", c.uri, r.text, c.stored)
		}
	}
}

// TestTokenWithOnlyACertificate: the private key is elsewhere for now.
func TestTokenWithOnlyACertificate(t *testing.T) {
	t.Parallel()
	key, store := newRSA(t, 2048), testenv.NewSoftHSM(t)
	store.AddToken(t, card)
	full := cardWith(t, key)
	store.AddKey(t, card, testenv.Key{ID: "01", Label: "key 1", Private: key, NoPublicKey: true, NoPrivateKey: true})
	h := &Handler{Connect: connect(t, store.Env...), TokenURI: "pkcs11:token=card"}
	_, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 262}, tokentest.NewUI(t, tokentest.Typed(card.PIN)...))
	if !errors.Is(err, tokens.ErrNoDevice) || !strings.Contains(err.Error(), "proving that card unlocks") {
		t.Fatalf("with the proof: %v", err)
	}
	h.NoVerify = true
	ui := tokentest.NewUI(t)
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 262, Label: "safe"}, ui)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	if !strings.Contains(strings.Join(e.Notes, " "), "test it") || e.Label != "safe" {
		t.Errorf("notes %q, label %q", e.Notes, e.Label)
	}
	got, err := unlock(t, &Handler{Connect: connect(t, full.Env...)}, string(e.Token), card.PIN)
	if err != nil || !got.Equal(e.Passphrase) {
		t.Errorf("with the private key: %v", err)
	}
}

func TestOneQuestionForSeveralVolumes(t *testing.T) {
	t.Parallel()
	h := &Handler{Connect: connect(t, fixtureStore(t).Env...), TokenURI: "pkcs11:object=rsa"}
	reqs := []*tokens.EnrollRequest{{Compat: 262}, {Compat: 252, Label: "old"}, {Compat: 262}}
	list, err := h.EnrollAll(t.Context(), reqs, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, e := range list {
		defer e.Passphrase.Wipe()
		r, err := parse(e.Token)
		if err != nil || (r.padding == wire.PKCS1) != (reqs[i].Compat == 252) {
			t.Errorf("volume %d: padding %s, %v", i, r.padding, err)
		}
		seen[string(e.Passphrase.Bytes())] = true
	}
	if len(seen) != 3 || list[1].Label != "old" || list[2].Label != "luksmith" {
		t.Errorf("%d passphrases, labels %q %q", len(seen), list[1].Label, list[2].Label)
	}
}

func TestKeyThatIsEnrolledAlreadyIsNoted(t *testing.T) {
	t.Parallel()
	h := &Handler{Connect: connect(t, fixtureStore(t).Env...), TokenURI: "pkcs11:object=rsa"}
	var list []luks2.Token
	for i, name := range []string{"systemd257-ec", "systemd257-rsa", "systemd262-rsa-oaep"} {
		list = append(list, token(i+4, string(readVolume(t, name).Token)))
	}
	list = append(list, luks2.Token{ID: 9, Type: "systemd-tpm2", Raw: list[1].Raw}, token(10, typeCert), token(11, "{"))
	req := &tokens.EnrollRequest{Compat: 262, Volume: tokens.Volume{Tokens: list}}
	e, err := h.Enroll(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(fixtureToken.PIN)...))
	if err != nil {
		t.Fatal(err)
	}
	e.Passphrase.Wipe()
	const twin = "This key unlocks keyslot 1 (pkcs11) too: one of the two can be wiped."
	want := []string{twin, twin} // tokens 5 and 6
	if !slices.Equal(e.Notes, want) {
		t.Errorf("notes %q", e.Notes)
	}
}

func TestListShowsKeysAndURIsToPaste(t *testing.T) {
	t.Parallel()
	store := fixtureStore(t)
	store.AddToken(t, testenv.Token{Label: "empty", PIN: "123456"})
	h := &Handler{Connect: connect(t, store.Env...)}
	table, err := h.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 3 || table.Rows[0][0] != "empty" || table.Rows[0][3] != "-" || table.Rows[1][3] != "RSA-2048" || table.Rows[2][3] != "P-256" {
		t.Fatalf("%q", table.Rows)
	}
	for _, row := range table.Rows[1:] {
		if row[0] != "luksmith" || row[1] != "SoftHSM project" || row[2] != "1de865a38bd47acc" || !systemdTakes(row[4]) {
			t.Errorf("row %q", row)
		}
		h.TokenURI = row[4]
		e := enroll(t, h, 262, fixtureToken.PIN)
		if e.Label != "luksmith" {
			t.Errorf("label %q", e.Label)
		}
	}
}

// TestKeyThatWantsThePINEachTime has CKA_ALWAYS_AUTHENTICATE, as the signature key
// of a PIV card.
func TestKeyThatWantsThePINEachTime(t *testing.T) {
	t.Parallel()
	store := testenv.NewSoftHSM(t)
	store.AddToken(t, card)
	store.Tool(t, card, "--login", "--keypairgen", "--key-type", "rsa:2048", "--usage-decrypt", "--always-auth", "--id", "01", "--label", "key")
	h, log := spied(t, store)
	h.TokenURI = auto
	e := enroll(t, h, 252, card.PIN)
	before := count(t, log, "C_Login")
	got, err := unlock(t, &Handler{Module: h.Module, Connect: h.Connect}, string(e.Token), card.PIN)
	if err != nil || !got.Equal(e.Passphrase) {
		t.Fatal(err)
	}
	if n := count(t, log, "C_Login") - before; n != 2 {
		t.Errorf("%d logins, want one for the token and one for the key", n)
	}
	tried := 0
	_, err = (&Handler{Module: h.Module, Connect: h.Connect}).Unlock(t.Context(), &tokens.UnlockRequest{
		Tokens: []luks2.Token{token(0, string(e.Token))}, Opens: func(context.Context, luks2.Token, secret.Secret) error { tried++; return nil }},
		tokentest.NewUI(t, tokentest.Typed("000000", "000001", "000002")...))
	if !errors.Is(err, tokens.ErrWrongPIN) || tried != 0 {
		t.Errorf("%v after %d tries", err, tried)
	}
}

func TestPlans(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h      *Handler
		compat int
		want   string
	}{
		{&Handler{TokenURI: auto}, 252, "PKCS#11, the only suitable key that is plugged in, RSA (PKCS#1 v1.5), PIN"},
		{&Handler{TokenURI: "pkcs11:id=%01?pin-value=1234"}, 256, "PKCS#11, pkcs11:id=%01, RSA (PKCS#1 v1.5) or EC, PIN"},
		{&Handler{NoVerify: true}, 262, "PKCS#11, the only suitable key that is plugged in, RSA (OAEP) or EC, PIN, not verified"},
	} {
		if got, err := c.h.Plan(&tokens.EnrollRequest{Compat: c.compat}); got != c.want || err != nil {
			t.Errorf("got %q, %v\nwant %q", got, err, c.want)
		}
	}
	if _, err := (&Handler{TokenURI: "x"}).Plan(&tokens.EnrollRequest{}); !errors.Is(err, tokens.ErrUsage) {
		t.Errorf("a bad URI: %v", err)
	}
}
