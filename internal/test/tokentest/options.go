package tokentest

import (
	"fmt"
	"go/token"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"luksmith/tokens"
)

var (
	optionName  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	placeholder = regexp.MustCompile(`^[A-Z0-9]`)
)

const everyPlace = tokens.Enrolling | tokens.Unlocking | tokens.Crypttab

func (s Subject) options(t *testing.T) {
	type key struct {
		name  string
		place tokens.Place
	}
	seen := map[key]bool{}
	for i, o := range s.New(t).Options() {
		for _, place := range []tokens.Place{tokens.Enrolling, tokens.Unlocking, tokens.Crypttab} {
			k := key{o.Name, o.Place & place}
			if k.place != 0 && seen[k] {
				t.Errorf("option %q is there twice for the same place", o.Name)
			}
			seen[k] = true
		}
		checkOption(t, o)
		s.setRubbish(t, i)
		s.setValues(t, i)
		s.setFields(t, i)
	}
}

func checkOption(t *testing.T, o tokens.Option) {
	if !optionName.MatchString(o.Name) {
		t.Errorf("option %q: the name must be lower-case words joined by dashes", o.Name)
	}
	if !line(o.Help) || strings.HasSuffix(o.Help, ".") {
		t.Errorf("option %q: the help %q must be one line without a full stop", o.Name, o.Help)
	}
	if o.Place == 0 || o.Place&^everyPlace != 0 {
		t.Errorf("option %q: Place is %b", o.Name, o.Place)
	}
	if o.Arg != "" && !placeholder.MatchString(o.Arg) {
		t.Errorf("option %q: the placeholder %q must begin in upper case", o.Name, o.Arg)
	}
	if o.Arg == "" && (o.List || len(o.Values) > 0) {
		t.Errorf("option %q has values but no placeholder", o.Name)
	}
	if o.Set == nil {
		t.Fatalf("option %q has no Set", o.Name)
	}
}

// setRubbish feeds option i of new handlers with values that nothing accepts and
// some that hardly anything does.
func (s Subject) setRubbish(t *testing.T, i int) {
	o := s.New(t).Options()[i]
	refused := []string{evil, "a\nb", "\x1b]0;x\a"}
	if o.Arg == "" {
		refused = append(refused, "yes", "rubbish")
	}
	maybe := []string{"", " ", ",", "=", ":", "+", "-1", "0", "99999999999999999999", "1e9", "auto", "list", "yes", "\xff\xfe", "%s%n",
		"/nonexistent/" + strings.Repeat("d/", 3000), strings.Repeat("7+", 50000), strings.Repeat("a", 1<<17)}
	for _, value := range slices.Concat(refused, maybe) {
		err := s.trySet(t, i, value)
		if err == nil && slices.Contains(refused, value) {
			t.Errorf("option %q accepts %q", o.Name, value)
		}
		if err != nil && !plain(err.Error()) {
			t.Errorf("option %q: the error for %.40q is not escaped: %.200q", o.Name, value, err)
		}
	}
}

// setValues checks what the option says that it accepts.
func (s Subject) setValues(t *testing.T, i int) {
	o := s.New(t).Options()[i]
	if o.Arg == "" {
		if err := s.trySet(t, i, ""); err != nil {
			t.Errorf("the switch %q is refused: %v", o.Name, err)
		}
	}
	for _, value := range o.Values {
		if err := s.trySet(t, i, value); err != nil && (value != "list" || !o.List) {
			t.Errorf("option %q refuses %q of its own Values: %v", o.Name, value, err)
		}
	}
}

// samples are values of which each option takes one at least, besides those that it
// names itself.
var samples = []string{"", "yes", "2", "/etc/key", "81000002", "64M", "500ms", "AAECAw==", "000b" + strings.Repeat("00", 32)}

// setFields checks that an option is an exported field of the handler, where programs
// that have no command line set it, and nothing besides.
func (s Subject) setFields(t *testing.T, i int) {
	var taken bool
	o := s.New(t).Options()[i]
	for _, value := range slices.Concat(o.Values, samples) {
		h := s.New(t)
		before := fields(h)
		if h.Options()[i].Set(value) != nil {
			continue
		}
		for name, now := range fields(h) {
			changed := before[name] != now
			if changed && !token.IsExported(name) {
				t.Errorf("option %q sets the field %q, which other packages cannot set", o.Name, name)
			}
			taken = taken || changed
		}
	}
	if !taken && o.Action == tokens.Parameter && o.Arg != "" {
		t.Errorf("option %q sets no field of the handler to any of %q", o.Name, slices.Concat(o.Values, samples))
	}
}

// fields are those of a handler that are not functions.
func fields(h tokens.Handler) map[string]string {
	v := reflect.ValueOf(h).Elem()
	list := map[string]string{}
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() != reflect.Func {
			list[v.Type().Field(i).Name] = fmt.Sprintf("%#v", f)
		}
	}
	return list
}

// trySet sets option i of a new handler.
func (s Subject) trySet(t *testing.T, i int, value string) (err error) {
	o := s.New(t).Options()[i]
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("option %q panics on %.40q: %v", o.Name, value, p)
			err = fmt.Errorf("panic")
		}
	}()
	return o.Set(value)
}
