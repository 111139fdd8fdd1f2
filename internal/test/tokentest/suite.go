package tokentest

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"luksmith/luks2"
	"luksmith/tokens"
)

// Subject is the handler under test and what the suite has to know about it.
type Subject struct {
	// New returns a new handler whose options are set for an ordinary run with
	// its device present. All handlers that it returns use the same device, so
	// that one unlocks what another enrolled. Start the device outside.
	New func(t *testing.T) tokens.Handler
	// Absent returns a new handler set up for a device that is not there. nil for
	// types without a device.
	Absent func(t *testing.T) tokens.Handler
	// EnrollAnswers and UnlockAnswers are what a person types, in order, while
	// the handler of New makes one token, or unlocks with one.
	EnrollAnswers, UnlockAnswers []string
	// Valid are tokens as real software wrote them. At least one.
	Valid []Fixture
	// Malformed are tokens that Describe must refuse. At least one if the type
	// has members of its own.
	Malformed []Malformed
	// Sealed names the members whose content list --json must not show, such as
	// "tpm2-blob". Text, base64 and hex forms are looked for.
	Sealed []string
}

// Fixture is a token from outside.
type Fixture struct {
	Name  string
	Token string // JSON object
}

// Malformed is a token with something wrong in it.
type Malformed struct {
	Name  string
	Token string // JSON object
	Field string // what FieldError.Field must say
}

// Run is the conformance suite. It counts goroutines and child processes, so call
// it from a test that is not parallel.
func Run(t *testing.T, s Subject) {
	t.Helper()
	if s.New == nil || len(s.Valid) == 0 {
		t.Fatal("Subject needs New and at least one valid token")
	}
	t.Run("identity", s.identity)
	t.Run("options", s.options)
	t.Run("describe", s.describe)
	t.Run("malformed", s.malformed)
	t.Run("mutated", s.mutated)
	t.Run("devices", s.devices)
	if _, ok := s.New(t).(tokens.Enroller); ok {
		t.Run("plan", s.plan)
		t.Run("enroll", s.enroll)
	}
	if _, ok := s.New(t).(tokens.Unlocker); ok {
		t.Run("unlock", s.unlock)
	}
}

var (
	typeName   = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	columnName = regexp.MustCompile(`^[A-Z0-9]+(_[A-Z0-9]+)*$`)
)

func (s Subject) identity(t *testing.T) {
	h := s.New(t)
	if !typeName.MatchString(h.Type()) || !typeName.MatchString(h.Name()) {
		t.Errorf("Type %q and Name %q must be words of a-z, 0-9 and dashes", h.Type(), h.Name())
	}
	if strings.HasPrefix(h.Type(), "luks2-") {
		t.Errorf("Type %q: the prefix luks2- is reserved for libcryptsetup", h.Type())
	}
	if again := s.New(t); again.Type() != h.Type() || again.Name() != h.Name() {
		t.Errorf("another handler says %q and %q instead of %q and %q", again.Type(), again.Name(), h.Type(), h.Name())
	}
	set := tokens.Set{h}
	if set.ByType(h.Type()) != h || set.ByName(h.Name()) != h {
		t.Error("Set does not find the handler")
	}
}

func (s Subject) devices(t *testing.T) {
	if w, ok := s.New(t).(tokens.Watcher); ok {
		list := w.Subsystems()
		if len(list) == 0 {
			t.Error("a Watcher without subsystems")
		}
		for _, name := range list {
			if name == "" || !plain(name) || strings.ContainsAny(name, "/ ") {
				t.Errorf("%q is not a kernel subsystem", name)
			}
		}
	}
	s.checkDevices(t, s.New(t))
	if s.Absent != nil {
		s.checkDevices(t, s.Absent(t))
	}
}

func (s Subject) checkDevices(t *testing.T, h tokens.Handler) {
	l, ok := h.(tokens.DeviceLister)
	if !ok {
		return
	}
	table, err := l.Devices(t.Context())
	if err != nil || table == nil {
		t.Fatalf("Devices: %v, %v", table, err)
	}
	for _, c := range table.Columns {
		if !columnName.MatchString(c) {
			t.Errorf("column %q is not one word in upper case", c)
		}
	}
	for _, row := range table.Rows {
		if len(row) != len(table.Columns) {
			t.Errorf("row %q has %d cells for %d columns", row, len(row), len(table.Columns))
		}
	}
}

// token is what the header would hold for the JSON text, in keyslot 1.
func (s Subject) token(t *testing.T, id int, text string) luks2.Token {
	t.Helper()
	return luks2.Token{ID: id, Type: s.New(t).Type(), Keyslots: []int{1}, Raw: json.RawMessage(text)}
}

// plain reports whether a terminal would show the text as it is: no control
// characters, nothing that turns the writing direction, no broken UTF-8.
func plain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
	})
}

// line reports whether the text is one plain line with something in it.
func line(text string) bool {
	return plain(text) && text != "" && strings.TrimSpace(text) == text
}

// evil is a text that must not reach a terminal as it is.
const evil = "\x1b[2J\x07\u202egnp\u2028\x00"
