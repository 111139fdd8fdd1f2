package policy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Members are the members of a token by their exact names.
type Members map[string]json.RawMessage

// Malformed is a *[tokens.FieldError].
func Malformed(field, format string, args ...any) error {
	return &tokens.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// Base64 reads a member as systemd does: standard alphabet, padding required,
// white space skipped.
func (m Members) Base64(name string) ([]byte, error) {
	var text string
	if present, err := tokens.Member(m, name, &text); err != nil || !present {
		return nil, err
	}
	return DecodeBase64(name, text)
}

// DecodeBase64 reads the text of the member of that name as Base64 does.
func DecodeBase64(name, text string) ([]byte, error) {
	text = strings.Join(strings.Fields(text), "")
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, Malformed(name, "is not base64")
	}
	if len(b) == 0 {
		return nil, Malformed(name, "is empty")
	}
	return b, nil
}

// Texts reads a member that is a string or, since systemd 257, an array of them.
func (m Members) Texts(name string) ([]string, error) {
	raw, ok := m[name]
	if !ok {
		return nil, Malformed(name, "is missing")
	}
	if len(raw) > 0 && raw[0] == '[' {
		var list []*string
		if _, err := tokens.Member(m, name, &list); err != nil {
			return nil, err
		}
		texts := make([]string, 0, len(list))
		for _, s := range list {
			if s == nil {
				return nil, Malformed(name, "has a null in its array")
			}
			texts = append(texts, *s)
		}
		return texts, nil
	}
	var one string
	_, err := tokens.Member(m, name, &one)
	return []string{one}, err
}

// PCRs reads an array of PCR numbers.
func (m Members) PCRs(name string) (set chip.PCRSet, present bool, err error) {
	var list []*int
	if present, err = tokens.Member(m, name, &list); err != nil || !present {
		return 0, present, err
	}
	for _, i := range list {
		switch {
		case i == nil:
			return 0, true, Malformed(name, "has a null in its array")
		case *i < 0 || *i >= chip.PCRCount:
			return 0, true, Malformed(name, "names PCR %d, the range is 0..%d", *i, chip.PCRCount-1)
		case set.Has(*i):
			return 0, true, Malformed(name, "names PCR %d twice", *i)
		}
		set |= 1 << *i
	}
	return set, true, nil
}
