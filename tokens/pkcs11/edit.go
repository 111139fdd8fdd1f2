package pkcs11

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// member is one to set in a JSON object.
type member struct {
	name  string
	value any
}

// edit sets members of an object and leaves all others, known or not, where they
// are. New ones go to the end.
func edit(object json.RawMessage, set []member) (json.RawMessage, error) {
	names, values, err := split(object)
	if err != nil {
		return nil, err
	}
	for _, m := range set {
		value, err := encodeJSON(m.value)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, m.name) {
			names, values = append(names, m.name), append(values, nil)
		}
		for i, name := range names { // all of a name that is there twice
			if name == m.name {
				values[i] = value
			}
		}
	}
	var b bytes.Buffer
	for i, name := range names {
		quoted, err := encodeJSON(name)
		if err != nil {
			return nil, err
		}
		b.WriteByte("{,"[min(i, 1)])
		b.Write(quoted)
		b.WriteByte(':')
		b.Write(values[i])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// split lists the members of an object in order.
func split(object json.RawMessage) (names []string, values []json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, nil, fmt.Errorf("no JSON object: %w", err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, nil, err
		}
		names, values = append(names, name.(string)), append(values, value)
	}
	_, err = d.Token()
	return names, values, err
}
