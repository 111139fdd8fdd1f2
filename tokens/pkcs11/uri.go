package pkcs11

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/tokens"
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

// classes are the values of attrType.
var classes = []string{"public", "private", "cert", "secret-key", "data"}

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
	errNotURI   = errors.New("is not a PKCS#11 URI")
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
		return uri{}, fmt.Errorf("is longer than %d bytes", maxURI)
	case !strings.HasPrefix(text, "pkcs11:"):
		return uri{}, errNotURI
	case text == "pkcs11:":
		return uri{}, errEmptyURI
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(text, "pkcs11:"), "?")
	var u uri
	var err error
	if u.attrs, err = attributes(path, ";"); err != nil {
		return uri{}, fmt.Errorf("is not a valid PKCS#11 URI: %w", err)
	}
	if u.query, err = attributes(query, "&"); err != nil {
		return uri{}, errQuery
	}
	return u, cmp.Or(u.checkNames(), u.checkValues())
}

// attributes decodes a part of a URI. Unlike RFC 7512 it takes any character that
// separates nothing unescaped, because people type labels as they see them.
func attributes(part, separator string) (map[string]string, error) {
	list := map[string]string{}
	if part == "" {
		return list, nil
	}
	for attr := range strings.SplitSeq(part, separator) {
		name, value, ok := strings.Cut(attr, "=")
		if !ok {
			return nil, fmt.Errorf("%.60q has no value", attr)
		}
		if _, twice := list[name]; twice {
			return nil, fmt.Errorf("%.60q stands twice", name)
		}
		decoded, err := url.PathUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("the value of %.60q has a malformed %% sign", name)
		}
		list[name] = decoded
	}
	return list, nil
}

func (u uri) checkNames() error {
	for _, name := range slices.Sorted(maps.Keys(u.attrs)) {
		if !slices.Contains(writtenOrder, name) && !slices.Contains(looseAttributes, name) {
			return &unknownAttributeError{name}
		}
	}
	return nil
}

// checkValues applies the grammar of RFC 7512 §2.3 and §2.4 to values, also to those
// that select nothing.
func (u uri) checkValues() error {
	if id, ok := u.attrs["slot-id"]; ok && !isNumber(id) {
		return fmt.Errorf("has the slot-id %.60q, which is not a number", id)
	}
	if version, ok := u.attrs["library-version"]; ok {
		major, minor, dot := strings.Cut(version, ".")
		if !isNumber(major) || dot && !isNumber(minor) {
			return fmt.Errorf("has the library-version %.60q, which is not a version", version)
		}
	}
	if class, ok := u.attrs[attrType]; ok && !slices.Contains(classes, class) {
		return fmt.Errorf("has the type %.60q, which is none of %s", class, strings.Join(classes, ", "))
	}
	_, value := u.query["pin-value"]
	_, source := u.query["pin-source"]
	if path, ok := u.query["module-path"]; value && source || ok && !filepath.IsAbs(path) {
		return errQuery
	}
	return nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

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

// narrowed is a URI of a header, restricted further by the administrator's: a key has
// to match both. If none can, no security device is touched.
func (u uri) narrowed(admin uri) (uri, error) {
	for _, name := range writtenOrder {
		value, ok := admin.attrs[name]
		if !ok || name == attrType {
			continue
		}
		if own, has := u.attrs[name]; has && own != value {
			return uri{}, fmt.Errorf("%w: the URI that was given asks for %s=%s, the token in the header for %s=%s", tokens.ErrOtherDevice, name, clean(value), name, clean(own))
		}
		u = u.with(name, []byte(value))
	}
	return u, nil
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
