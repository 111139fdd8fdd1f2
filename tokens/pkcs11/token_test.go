package pkcs11

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// textOf is a token with the given members.
func textOf(uri string, key []byte, more string) string {
	return fmt.Sprintf(`{"type":"systemd-pkcs11","keyslots":["1"],"pkcs11-uri":%q,"pkcs11-key":%q%s}`, uri, base64.StdEncoding.EncodeToString(key), more)
}

func TestTokensAreDescribed(t *testing.T) {
	t.Parallel()
	point := append([]byte{uncompressed}, make([]byte, 64)...)
	for _, c := range []struct {
		token    string
		want     Detail
		unusable string
	}{
		{string(readVolume(t, "systemd257-rsa").Token), Detail{URI: "pkcs11:token=luksmith;id=%01;object=rsa", Key: "RSA-2048", Padding: "pkcs1", Upgrade: []string{"padding"}}, ""},
		{string(readVolume(t, "systemd257-ec").Token), Detail{URI: "pkcs11:token=luksmith;id=%02;object=ec", Key: "P-256"}, ""},
		{string(readVolume(t, "systemd262-rsa-oaep").Token), Detail{URI: "pkcs11:token=luksmith;id=%01;object=rsa", Key: "RSA-2048", Padding: "oaep-sha1"}, ""},
		{typeCert, Detail{URI: "pkcs11:token=tok1;object=rsa;type=cert", Key: "RSA-2048", Padding: "pkcs1", Upgrade: []string{"padding", "uri"}}, ""},
		{textOf("pkcs11:token=a?pin-value=1234", point, ""), Detail{URI: "pkcs11:token=a", Key: "P-256"}, ""},
		{textOf("pkcs11:token=a", make([]byte, 97), ""), Detail{URI: "pkcs11:token=a", Key: "EC, 384 bits"}, ""},
		{textOf("pkcs11:token=a;x-new=1", point, ""), Detail{URI: "pkcs11:token=a;x-new=1", Key: "P-256"}, `its URI has the unknown attribute "x-new"`},
		{textOf("pkcs11:token=a", make([]byte, 512), `,"pkcs11-padding":"oaep-sha512"`), Detail{URI: "pkcs11:token=a", Key: "RSA-4096", Padding: "oaep-sha512"}, `made by a newer systemd: unknown padding "oaep-sha512"`},
		{textOf("pkcs11:token=a", point, `,"pkcs11-kdf":"hkdf"`), Detail{URI: "pkcs11:token=a", Key: "P-256"}, `made by a newer systemd: unknown member "pkcs11-kdf"`},
		{textOf("pkcs11:token=a", point, `,"other":"x","luksmith":{"label":"blue card"}`), Detail{URI: "pkcs11:token=a", Key: "P-256"}, ""},
	} {
		d, err := new(Handler).Describe(token(0, c.token))
		got, _ := json.Marshal(d.Detail)
		want, _ := json.Marshal(c.want)
		if err != nil || !bytes.Equal(got, want) || d.Unusable != c.unusable {
			t.Errorf("%.120s\n got %s %q %v\nwant %s %q", c.token, got, d.Unusable, err, want, c.unusable)
		}
		if d.Cost != costPIN || fmt.Sprint(d.Requires) != "[PIN]" {
			t.Errorf("cost %d, requires %v", d.Cost, d.Requires)
		}
		if want := strings.Contains(c.token, "blue card"); (d.Label == "blue card") != want {
			t.Errorf("label %q", d.Label)
		}
	}
}

func TestKeysMayHaveWhiteSpaceLikeSystemds(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte{7}, 256)
	encoded := base64.StdEncoding.EncodeToString(want)
	key, err := decodeKey(encoded[:10] + " \t\n\r" + encoded[10:])
	if err != nil || !bytes.Equal(key, want) {
		t.Errorf("%x, %v", key, err)
	}
	for _, bad := range []string{strings.Repeat("A", 4<<10), encoded[:len(encoded)-1], "", "AAAA"} {
		if _, err := decodeKey(bad); !errors.Is(err, tokens.ErrMalformed) {
			t.Errorf("%.20q: %v, want ErrMalformed", bad, err)
		}
	}
}

func TestNewTokensAreReadBack(t *testing.T) {
	t.Parallel()
	for _, r := range []record{
		{key: make([]byte, 256), padding: wire.PKCS1},
		{key: make([]byte, 384), padding: wire.OAEPSHA1},
		{key: make([]byte, 65), padding: wire.PKCS1},
	} {
		r.uri = uri{}.with(attrSerial, []byte("1")).with(attrID, []byte{0, 255})
		text, err := r.encode(tokens.NewExtra("a<b>&", "Card"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(`\u003c`)) || bytes.HasSuffix(text, []byte("\n")) {
			t.Errorf("not plain JSON: %s", text)
		}
		got, err := parse(text)
		if err != nil || !bytes.Equal(got.key, r.key) || got.padding != r.padding || got.text != "pkcs11:serial=1;id=%00%FF" {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
		if hasPadding := bytes.Contains(text, []byte(memberPadding)); hasPadding != (r.padding != wire.PKCS1) {
			t.Errorf("padding member: %s", text)
		}
	}
}

func TestUnknownMembersSurviveAnEdit(t *testing.T) {
	t.Parallel()
	got, err := setMembers(json.RawMessage(`{"z": [1, 2.50],"pkcs11-uri":"old","a":{"pkcs11-uri":"inner"} ,"b<":1e2}`),
		[]member{{"pkcs11-uri", "new<"}, {"pkcs11-padding", wire.OAEPSHA1}})
	want := `{"z": [1, 2.50],"pkcs11-uri":"new<","a":{"pkcs11-uri":"inner"} ,"b<":1e2,"pkcs11-padding":"oaep-sha1"}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte(typeCert))
	f.Add([]byte(textOf("pkcs11:token=a?x", make([]byte, 65), `,"pkcs11-padding":"x"`)))
	f.Add([]byte(textOf("pkcs11:token=a", make([]byte, 65), `,"pkcs11-uri":"pkcs11:id=%01"`)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := new(Handler).Describe(luks2.Token{Type: Type, Raw: raw})
		if err != nil {
			if !errors.Is(err, tokens.ErrMalformed) {
				t.Errorf("not ErrMalformed: %v", err)
			}
			return
		}
		r, _ := parse(raw)
		stored := r.uri.forStorage().String()
		edited, err := setMembers(raw, []member{{memberURI, stored}})
		if err != nil {
			return // text that package luks2 is stricter about never gets here
		}
		if again, err := parse(edited); err != nil || !bytes.Equal(again.key, r.key) || again.text != stored {
			t.Errorf("the edited token %s: %v", edited, err)
		}
	})
}
