package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSONMode is the value of --json=. It is a pflag.Value.
type JSONMode string

// The modes, with systemd's words.
const (
	JSONOff    JSONMode = "off"    // text for people; also the zero value
	JSONShort  JSONMode = "short"  // one line
	JSONPretty JSONMode = "pretty" // indented
)

// Set parses the option's value.
func (m *JSONMode) Set(value string) error {
	switch mode := JSONMode(value); mode {
	case JSONOff, JSONShort, JSONPretty:
		*m = mode
		return nil
	}
	return fmt.Errorf("it is pretty, short or off, not %q", value)
}

// String is the value, "off" for the zero value.
func (m *JSONMode) String() string {
	if *m == "" {
		return string(JSONOff)
	}
	return string(*m)
}

// Type is the placeholder in help texts.
func (*JSONMode) Type() string { return "pretty|short|off" }

// On says that JSON takes the place of text.
func (m JSONMode) On() bool { return m == JSONShort || m == JSONPretty }

// JSON prints one document and a line end. Characters that are not [Printable]
// stand in it as \u escapes, so that a terminal is safe and the value the same.
func (s *Stream) JSON(mode JSONMode, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if mode == JSONPretty {
		enc.SetIndent("", "\t")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encoding JSON: %w", err)
	}
	s.document = true
	_, err := io.WriteString(s.raw, escapeJSON(b.Bytes()))
	return err
}

// JSONError prints why a command failed, in place of the document that it would have
// printed. Without --json it prints nothing.
func (s *Stream) JSONError(mode JSONMode, code int, err error) {
	if !mode.On() {
		return
	}
	_ = s.JSON(mode, struct {
		Error *ErrorView `json:"error"`
	}{ViewError(code, err)}) // whoever reads it sees that it is not there
}

// ErrorView is a failure in JSON.
type ErrorView struct {
	Code    int      `json:"code"` // exit status
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
	Hints   []string `json:"hints,omitempty"` // where there are several
}

// ViewError is a failure with its exit status.
func ViewError(code int, err error) *ErrorView {
	v := &ErrorView{Code: code, Message: strings.Join(errorLines(err), "\n")}
	if list := hints(err); len(list) > 0 {
		v.Hint = list[0]
		if len(list) > 1 {
			v.Hints = list
		}
	}
	return v
}

// HasDocument reports whether JSON was printed already.
func (s *Stream) HasDocument() bool { return s.document }

// BeginDocument is told that a document is printed piece by piece.
func (s *Stream) BeginDocument() { s.document = true }

// escapeJSON replaces characters of strings that a terminal would interpret.
// Outside strings JSON has only ASCII, tabs and line ends.
func escapeJSON(doc []byte) string {
	out := make([]byte, 0, len(doc))
	for len(doc) > 0 {
		r, n := utf8.DecodeRune(doc)
		switch {
		case r == '\n' || r == '\t' || Printable(r):
			out = append(out, doc[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		doc = doc[n:]
	}
	return string(out)
}
