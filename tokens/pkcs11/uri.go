package pkcs11

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	pkcs11uri "github.com/stefanberger/go-pkcs11uri"

	"luksmith/tokens/pkcs11/wire"
)

// maxURI bounds the length of a URI, which comes from a header. Every attribute
// of PKCS#11 that a URI can name has at most 64 bytes, but CKA_LABEL and CKA_ID.
const maxURI = 4096

// The path attributes of RFC 7512 §2.3, in the order in which we write them.
const (
	attrToken        = "token"
	attrManufacturer = "manufacturer"
	attrModel        = "model"
	attrSerial       = "serial"
	attrID           = "id"
	attrObject       = "object"
	attrType         = "type"
)

var writtenOrder = []string{attrToken, attrManufacturer, attrModel, attrSerial,
	"slot-manufacturer", "slot-description", attrID, attrObject, attrType}

// tokenAttributes is how many of writtenOrder are about the token.
const tokenAttributes = 6

// looseAttributes select nothing. The first two name a module: through p11-kit's
// proxy all tokens seem to come from one. The third is a number that changes with
// the order of plugging in, and the proxy renumbers slots. The others are names
// for the class of the object: a token is unlocked with the private key of
// whatever the URI names, because systemd up to 255 stored "type=cert" if the
// user had typed that, and no version of systemd unlocks such a token.
var looseAttributes = []string{"library-manufacturer", "library-description", "library-version", "slot-id",
	attrType, "object-type", "objecttype"}

// uri is a PKCS#11 URI (RFC 7512) reduced to what selects a token and an object
// on it. The zero value selects every object of every token.
type uri struct {
	attrs map[string]string // path attributes, decoded
	query map[string]string // pin-value, pin-source, module-path, module-name; decoded
}

var (
	errNotURI   = errors.New("is no PKCS#11 URI")
	errLongURI  = fmt.Errorf("is longer than %d bytes", maxURI)
	errEmptyURI = errors.New("is a PKCS#11 URI without any attribute")
	// errQuery keeps the reason to itself: the part may hold a PIN.
	errQuery = errors.New("is a PKCS#11 URI with a malformed part after the question mark")
)

// unknownAttributeError is a path attribute that RFC 7512 does not have. Such a
// URI matches nothing: what it wanted to exclude is not known.
type unknownAttributeError struct{ name string }

// Error continues a sentence that begins with what has the attribute.
func (e *unknownAttributeError) Error() string {
	return fmt.Sprintf("has the unknown attribute %q", e.name)
}

// parseHeaderURI reads the URI of a token. Its query part, which could name a
// module to load or a PIN to send, is not even looked at: RFC 7512 leaves these to
// the one who configures a machine, and that is not the header of a disk.
func parseHeaderURI(text string) (uri, error) {
	path, _, _ := strings.Cut(text, "?")
	return parseURI(path)
}

// parseURI reads a URI whose every part counts, from the administrator.
func parseURI(text string) (uri, error) {
	switch {
	case len(text) > maxURI:
		return uri{}, errLongURI
	case !strings.HasPrefix(text, "pkcs11:"):
		return uri{}, errNotURI
	case text == "pkcs11:":
		return uri{}, errEmptyURI
	}
	path, query, _ := strings.Cut(text, "?")
	p := pkcs11uri.New()
	if err := p.Parse(path); err != nil {
		return uri{}, fmt.Errorf("is no valid PKCS#11 URI: %q", err.Error())
	}
	if p.Parse(text) != nil {
		return uri{}, errQuery
	}
	u := uri{attrs: map[string]string{}, query: map[string]string{}}
	path = strings.TrimPrefix(path, "pkcs11:")
	for _, name := range attributeNames(path, ";") {
		u.attrs[name], _ = p.GetPathAttribute(name, false)
	}
	for _, name := range attributeNames(query, "&") {
		u.query[name], _ = p.GetQueryAttribute(name, false)
	}
	return u, u.checkNames()
}

// attributeNames are the names in a part of a URI that go-pkcs11uri has accepted;
// it does not list them itself.
func attributeNames(part, separator string) []string {
	var names []string
	for attr := range strings.SplitSeq(part, separator) {
		if name, _, ok := strings.Cut(attr, "="); ok {
			names = append(names, name)
		}
	}
	return names
}

func (u uri) checkNames() error {
	for _, name := range slices.Sorted(maps.Keys(u.attrs)) {
		if !slices.Contains(writtenOrder, name) && !slices.Contains(looseAttributes, name) {
			return &unknownAttributeError{name}
		}
	}
	return nil
}

// String formats the URI in one fixed order without its query part. All but the
// unreserved characters of RFC 3986 are percent-encoded: RFC 7512 allows more, but
// systemd refuses a token whose URI has any other (systemd 257
// src/shared/pkcs11-util.c, pkcs11_uri_valid).
func (u uri) String() string {
	var b strings.Builder
	b.WriteString("pkcs11:")
	separator := ""
	for _, name := range writtenOrder {
		value, ok := u.attrs[name]
		if !ok {
			continue
		}
		b.WriteString(separator + name + "=")
		escape(&b, value, name == attrID)
		separator = ";"
	}
	return b.String()
}

// escape percent-encodes value, every byte of it with all set: the form that is
// usual for CKA_ID.
func escape(b *strings.Builder, value string, all bool) {
	for _, c := range []byte(value) {
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
		if plain && !all {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}

// with returns a copy of the URI that has the attribute; an empty value is left
// out.
func (u uri) with(name string, value []byte) uri {
	n := uri{attrs: maps.Clone(u.attrs), query: u.query}
	if n.attrs == nil {
		n.attrs = map[string]string{}
	}
	delete(n.attrs, name)
	if len(value) > 0 {
		n.attrs[name] = string(value)
	}
	return n
}

// matches reports whether the value that a token has for an attribute is the one
// that the URI asks for, if it asks.
func (u uri) matches(name string, value []byte) bool {
	want, ok := u.attrs[name]
	return !ok || want == string(value)
}

// matchesToken compares what the URI says about a token and its slot.
func (u uri) matchesToken(t *wire.Token) bool {
	return u.matches(attrToken, t.Label) && u.matches(attrManufacturer, t.Manufacturer) &&
		u.matches(attrModel, t.Model) && u.matches(attrSerial, t.Serial) &&
		u.matches("slot-manufacturer", t.SlotManufacturer) && u.matches("slot-description", t.SlotDescription)
}

// matchesObject compares what the URI says about an object.
func (u uri) matchesObject(id, label []byte) bool {
	return u.matches(attrID, id) && u.matches(attrObject, label)
}

// namesToken and namesObject report whether the URI says anything about them.
func (u uri) namesToken() bool { return u.has(writtenOrder[:tokenAttributes]...) }

func (u uri) namesObject() bool { return u.has(attrID, attrObject) }

func (u uri) has(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { _, ok := u.attrs[name]; return ok })
}

// wrongClass reports whether systemd refuses to unlock with the URI, because it
// asks for something else than a private key.
func (u uri) wrongClass() bool {
	for _, name := range []string{attrType, "object-type", "objecttype"} {
		if class, ok := u.attrs[name]; ok && class != "private" {
			return true
		}
	}
	return false
}

// forStorage is the URI of the private key, without what changes from day to day.
func (u uri) forStorage() uri {
	n := uri{attrs: maps.Clone(u.attrs)}
	for _, name := range looseAttributes {
		delete(n.attrs, name)
	}
	return n.with(attrType, []byte("private"))
}
