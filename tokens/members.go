package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Members splits a token into its members by their exact names. Decoding into a
// struct would also take "TPM2-BLOB" for "tpm2-blob", which neither systemd nor
// libcryptsetup does. Of several members of one name the last counts, as there.
// Text that is not a JSON object is [ErrMalformed].
func Members(token json.RawMessage) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(token, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if m == nil {
		return nil, fmt.Errorf("%w: null instead of an object", ErrMalformed)
	}
	return m, nil
}

// Member decodes one member of the result of [Members] into v and says whether it
// is there. null counts as a wrong type, as it does for systemd. Errors are
// *[FieldError]. Decode into an *int, *bool, *string, *[]byte (base64) or slices
// of them; structs inside v would again be matched whatever the case.
func Member(m map[string]json.RawMessage, name string, v any) (present bool, err error) {
	raw, ok := m[name]
	if !ok {
		return false, nil
	}
	if string(raw) == "null" {
		return true, &FieldError{Field: name, Reason: "is null"}
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, &FieldError{Field: name, Reason: reason(err)}
	}
	return true, nil
}

// reason says what is wrong with a member, without the Go names in err.
func reason(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("is a %.40s where %s is expected", e.Value, e.Type)
	}
	return err.Error()
}

// NeedMember is [Member] for members that a token must have.
func NeedMember(m map[string]json.RawMessage, name string, v any) error {
	present, err := Member(m, name, v)
	if err == nil && !present {
		return &FieldError{Field: name, Reason: "is missing"}
	}
	return err
}
