package pkcs11

import (
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
)

// typeCert is what systemd 252 made of a URI with type=cert.
const typeCert = `{"type":"systemd-pkcs11","keyslots":["1"],"pkcs11-uri":"pkcs11:token=tok1;object=rsa;type=cert","pkcs11-key":"cj6q8QCQjmpFGtQnjsVEKHeNlay0UtqV7AuAHKGlV+X3MMVSab2DRbItxecyzkRXA1JSB8ZuXEQQ/1sBMe0YAcx+d4CkRq3EzUiRi8DfSS3DeYzGI3jgfq8nuONBJmGT/qx2ffu3QT5aBkFlbLPHJDChWxhQoO/gH9+IcD8iOub2lSplK7lwvmzFo4KLsZ41k8zh9asUFfXXkLuUELP23MTqb+exaSRnqcaRd4xL1sYaWJM3KUZG2UQBjUYqRPYDYvQxSS0KELdSh2QTfquXSMnKYswDLeVY2EyIzOavXCS1KtrMuQF52njz/D9JrhgtLWwXQPYBF7T4msbIo7aANA=="}`

func TestConformance(t *testing.T) {
	var key80 = strings.Repeat("A", 80)
	malformed := func(name, field, members string) tokentest.Malformed {
		return tokentest.Malformed{Name: name, Field: field, Token: fmt.Sprintf(`{"type":"systemd-pkcs11","keyslots":["1"]%s}`, members)}
	}
	for _, key := range []string{"01", "02"} {
		t.Run(key, func(t *testing.T) {
			store, empty := fixtureStore(t), testenv.NewSoftHSM(t)
			with, without := connect(t, store.Env...), connect(t, empty.Env...)
			tokentest.Run(t, tokentest.Subject{
				New: func(*testing.T) tokens.Handler {
					return &Handler{TokenURI: "pkcs11:token=luksmith;id=%" + key, Connect: with}
				},
				Absent:        func(*testing.T) tokens.Handler { return &Handler{Connect: without} },
				EnrollAnswers: []string{"1234"},
				UnlockAnswers: []string{"1234"},
				Valid: []tokentest.Fixture{
					{Name: "systemd257-rsa", Token: string(readVolume(t, "systemd257-rsa").Token)},
					{Name: "systemd257-ec", Token: string(readVolume(t, "systemd257-ec").Token)},
					{Name: "systemd262-rsa-oaep", Token: string(readVolume(t, "systemd262-rsa-oaep").Token)},
					{Name: "systemd252-rsa-cert", Token: typeCert},
				},
				Malformed: []tokentest.Malformed{
					malformed("no URI", memberURI, `,"pkcs11-key":"`+key80+`"`),
					malformed("URI is not a string", memberURI, `,"pkcs11-uri":5,"pkcs11-key":"`+key80+`"`),
					malformed("URI of another scheme", memberURI, `,"pkcs11-uri":"file:/x","pkcs11-key":"`+key80+`"`),
					malformed("empty URI", memberURI, `,"pkcs11-uri":"pkcs11:","pkcs11-key":"`+key80+`"`),
					malformed("URI with a broken escape", memberURI, `,"pkcs11-uri":"pkcs11:token=%zz\u001b","pkcs11-key":"`+key80+`"`),
					malformed("no key", memberKey, `,"pkcs11-uri":"pkcs11:token=x"`),
					malformed("key is not base64", memberKey, `,"pkcs11-uri":"pkcs11:token=x","pkcs11-key":"??"`),
					malformed("short key", memberKey, `,"pkcs11-uri":"pkcs11:token=x","pkcs11-key":"AAAA"`),
					malformed("padding is not a string", memberPadding, `,"pkcs11-uri":"pkcs11:token=x","pkcs11-key":"`+key80+`","pkcs11-padding":1`),
				},
				Sealed: []string{memberKey},
			})
		})
	}
}
