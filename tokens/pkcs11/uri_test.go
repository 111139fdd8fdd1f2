package pkcs11

import (
	"errors"
	"strings"
	"testing"

	pkcs11uri "github.com/stefanberger/go-pkcs11uri"

	"luksmith/tokens/pkcs11/wire"
)

// systemdTakes is what systemd requires of the text of a URI (systemd 257
// src/shared/pkcs11-util.c, pkcs11_uri_valid).
func systemdTakes(text string) bool {
	rest, ok := strings.CutPrefix(text, "pkcs11:")
	return ok && rest != "" && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.~/-_?;&%=") == ""
}

func TestURIsAreReadAndWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, stored string }{
		{"pkcs11:token=luksmith;id=%01;object=rsa", "pkcs11:token=luksmith;id=%01;object=rsa;type=private"},
		{"pkcs11:object=rsa;type=cert;token=a", "pkcs11:token=a;object=rsa;type=private"},
		{"pkcs11:object-type=public;id=%ab%CD", "pkcs11:id=%AB%CD;type=private"},
		{"pkcs11:token=My+Token: (1)", "pkcs11:token=My%2BToken%3A%20%281%29;type=private"},
		{"pkcs11:token=B%C3%BCro;serial=00%2f7;slot-id=3", "pkcs11:token=B%C3%BCro;serial=00%2F7;type=private"},
		{"pkcs11:id=rsa", "pkcs11:id=%72%73%61;type=private"},
		{"pkcs11:library-description=x;model=PKCS%2315;manufacturer=piv_II", "pkcs11:manufacturer=piv_II;model=PKCS%2315;type=private"},
		{"pkcs11:slot-description=Reader%2000;slot-manufacturer=m", "pkcs11:slot-manufacturer=m;slot-description=Reader%2000;type=private"},
		{"pkcs11:token=a?pin-value=1234&module-path=/tmp/evil.so", "pkcs11:token=a;type=private"},
	} {
		u, err := parseURI(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got := u.forStorage().String(); got != c.stored || !systemdTakes(got) {
			t.Errorf("%s is stored as %s, want %s", c.in, got, c.stored)
		}
	}
}

func TestBadURIsAreRefused(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                "is not a PKCS#11 URI",
		"auto":                            "is not a PKCS#11 URI",
		"PKCS11:token=a":                  "is not a PKCS#11 URI",
		"pkcs11:":                         "without any attribute",
		"pkcs11:token":                    "is not a valid PKCS#11 URI",
		"pkcs11:token=a;token=b":          "is not a valid PKCS#11 URI",
		"pkcs11:token=%4":                 "is not a valid PKCS#11 URI",
		"pkcs11:token=a;colour=red":       `unknown attribute "colour"`,
		"pkcs11:token=a;x-vendor=1":       `unknown attribute "x-vendor"`,
		"pkcs11:id=" + manyBytes(maxURI):  "longer than",
		"pkcs11:token=a;slot-id=x":        "is not a number",
		"pkcs11:library-version=1.":       "is not a version",
		"pkcs11:type=key":                 "none of public, private",
		"pkcs11:token=a?pin-value=%4hush": "malformed part after the question mark",
		"pkcs11:token=a?pin-value=hush&pin-source=/f": "malformed part after the question mark",
		"pkcs11:token=a?module-path=m.so":             "malformed part after the question mark",
	} {
		_, err := parseURI(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("the error shows a PIN: %v", err)
		}
	}
}

func manyBytes(n int) string { return strings.Repeat("%41", n/3+1) }

func TestHeaderURIHasNoQuery(t *testing.T) {
	t.Parallel()
	u, err := parseHeaderURI("pkcs11:token=a?pin-value=1234&module-path=/tmp/evil.so&pin-source=/etc/shadow")
	if err != nil || len(u.query) != 0 {
		t.Errorf("the header's query part is read: %v, %v", u.query, err)
	}
	if _, err := parseHeaderURI("pkcs11:token=a?garbage%"); err != nil {
		t.Errorf("the header's query part is looked at: %v", err)
	}
	var unknown *unknownAttributeError
	if _, err := parseHeaderURI("pkcs11:future=a"); !errors.As(err, &unknown) {
		t.Errorf("an attribute of the future: %v", err)
	}
}

func TestURIsSelectTokensAndKeys(t *testing.T) {
	t.Parallel()
	device := &wire.Token{Label: []byte("luks mith"), Manufacturer: []byte("SoftHSM"), Model: []byte("v2"), Serial: []byte("1de8"),
		SlotDescription: []byte("slot"), SlotManufacturer: []byte("maker")}
	for in, want := range map[string][2]bool{ // device, key with CKA_ID 01 and CKA_LABEL rsa
		"pkcs11:token=luks%20mith":                                     {true, true},
		"pkcs11:token=luks":                                            {false, true},
		"pkcs11:token=luks%20mith;serial=1de8;model=v2":                {true, true},
		"pkcs11:token=luks%20mith;serial=1DE8":                         {false, true},
		"pkcs11:manufacturer=SoftHSM;id=%01":                           {true, true},
		"pkcs11:id=%02":                                                {true, false},
		"pkcs11:object=rsa;id=%01":                                     {true, true},
		"pkcs11:object=RSA":                                            {true, false},
		"pkcs11:slot-description=slot;object=":                         {true, false},
		"pkcs11:slot-manufacturer=other":                               {false, true},
		"pkcs11:slot-id=77;library-description=x;type=cert;object=rsa": {true, true},
	} {
		u, err := parseURI(in)
		if err != nil {
			t.Fatal(in, err)
		}
		if got := [2]bool{u.matchesToken(device), u.matchesObject([]byte{1}, []byte("rsa"))}; got != want {
			t.Errorf("%s matches token, key: %v, want %v", in, got, want)
		}
	}
}

func TestWrongClassIsSeen(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"pkcs11:token=a": false, "pkcs11:token=a;type=private": false, "pkcs11:token=a;type=cert": true,
		"pkcs11:token=a;type=public": true, "pkcs11:token=a;object-type=cert": true,
	} {
		u, err := parseURI(in)
		if err != nil || u.wrongClass() != want {
			t.Errorf("%s: %v, %v", in, u.wrongClass(), err)
		}
	}
}

// differs reports the values on which we follow RFC 7512 and go-pkcs11uri does
// not: it takes signs in numbers and an empty type, and refuses two classes (a
// typing mistake in its expression) and an empty query.
func differs(u uri, text string) bool {
	class, typed := u.attrs[attrType]
	slot := u.attrs["slot-id"]
	return typed && (class == "" || class == "secret-key" || class == "data") ||
		strings.Trim(slot, "0123456789") != "" || len(slot) > 18 || strings.HasSuffix(text, "?")
}

// compareURI reads a URI with go-pkcs11uri and with us. Attributes that RFC 7512
// does not have are left to TestBadURIsAreRefused.
func compareURI(t *testing.T, text string) {
	t.Helper()
	other := pkcs11uri.New()
	theirs := other.Parse(text)
	ours, err := parseURI(text)
	if unknown := (*unknownAttributeError)(nil); errors.As(err, &unknown) || len(text) > maxURI || text == "pkcs11:" {
		return
	}
	if (theirs == nil) != (err == nil) && !differs(ours, text) {
		t.Errorf("%q: go-pkcs11uri says %v, we say %v", text, theirs, err)
	}
	if theirs != nil || err != nil {
		return
	}
	for name, value := range ours.attrs {
		if want, ok := other.GetPathAttribute(name, false); !ok || value != want {
			t.Errorf("%q: %s is %q, go-pkcs11uri has %q", text, name, value, want)
		}
	}
	for name, value := range ours.query {
		if want, ok := other.GetQueryAttribute(name, false); !ok || value != want {
			t.Errorf("%q: %s is %q, go-pkcs11uri has %q", text, name, value, want)
		}
	}
}

func TestURIsAreReadAsByGoPKCS11URI(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "pkcs11", "pkcs11:;", "pkcs11:token", "pkcs11:token=", "pkcs11:token=a;", "pkcs11:token=a=b", "pkcs11:token=a;token=b",
		"pkcs11:id=%00%fF;object=x%3By", "pkcs11:object=a+b%2Bc", "pkcs11:object=a%2", "pkcs11:object=%zz", "pkcs11:object=B\u00fcro",
		"pkcs11:type=private", "pkcs11:type=data", "pkcs11:slot-id=+1", "pkcs11:type=public;slot-id=12", "pkcs11:type=certificate", "pkcs11:slot-id=0x1",
		"pkcs11:library-version=3", "pkcs11:library-version=3.1", "pkcs11:library-version=3.1.2", "pkcs11:library-version=v3",
		"pkcs11:token=a?pin-value=1%3a&module-name=p11", "pkcs11:?pin-value=1", "pkcs11:token=a?b?c=d", "pkcs11:token=a?pin-value",
		"pkcs11:token=a?pin-value=1&pin-value=2", "pkcs11:token=a?pin-value=1&pin-source=/f", "pkcs11:token=a?module-path=/m.so",
		"pkcs11:token=a?module-path=m.so", "pkcs11:token=a?pin-value=%1",
	} {
		compareURI(t, text)
	}
}

func FuzzURI(f *testing.F) {
	for _, seed := range []string{"pkcs11:token=a;id=%01?pin-value=1", "pkcs11:object=%00%ff", "pkcs11:?", "pkcs11:;;", "pkcs11:token==", "pkcs11:type=cert", "pkcs11:slot-id=7;library-version=3.1?module-path=/m&pin-source=/p"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		compareURI(t, text)
		u, err := parseURI(text)
		if err != nil {
			return
		}
		stored := u.forStorage().String()
		if !systemdTakes(stored) {
			t.Errorf("systemd refuses what is stored: %q", stored)
		}
		again, err := parseHeaderURI(stored)
		if err != nil && len(stored) <= maxURI {
			t.Fatalf("what is stored cannot be read: %q: %v", stored, err)
		}
		if err == nil && again.forStorage().String() != stored {
			t.Errorf("%q is read as %q", stored, again)
		}
	})
}
