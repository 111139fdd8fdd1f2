package tokens

import (
	"encoding/json"
	"fmt"
	"time"

	"luksmith/luks2"
)

// ExtraMember is the one member that luksmith adds to tokens of systemd's types.
// systemd 252..262 and cryptsetup keep and ignore it.
const ExtraMember = "luksmith"

// Extra is the part of the "luksmith" member that all types share. A handler
// embeds it in a struct with its own members. Everything in it comes from the
// header and is untrusted.
type Extra struct {
	Label   LabelText `json:"label,omitempty"`
	Created string    `json:"created,omitempty"` // RFC 3339, UTC, seconds
	Device  string    `json:"device,omitempty"`  // product name
}

// NewExtra returns an Extra with the present time.
func NewExtra(label, device string) Extra {
	return Extra{Label: LabelText(label), Device: device, Created: time.Now().UTC().Format(time.RFC3339)}
}

// ReadExtra decodes the "luksmith" member of a token into v. A token without one
// leaves v as it is; one of the wrong shape is an error, which callers may ignore
// because nothing in it is needed to unlock.
func ReadExtra(token json.RawMessage, v any) error {
	members, err := Members(token)
	if err != nil {
		return err
	}
	_, err = Member(members, ExtraMember, v)
	return err
}

// Label is the user's name in a token, or "".
func Label(token json.RawMessage) string {
	var e Extra
	if ReadExtra(token, &e) != nil {
		return ""
	}
	return string(e.Label)
}

// setExtra changes one member inside the "luksmith" member of a token, and makes
// that if need be; all others keep their bytes.
func setExtra(token json.RawMessage, name, value string) (json.RawMessage, error) {
	members, err := Members(token)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	path := []string{ExtraMember, name}
	if _, ok := members[ExtraMember]; !ok {
		path, text = path[:1], fmt.Appendf(nil, `{%q:%s}`, name, text)
	}
	return luks2.SetMember(token, text, path...)
}
