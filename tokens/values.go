package tokens

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"luksmith/crypttab"
)

// errNoValue is returned by the Set function of a switch that was given a value.
var errNoValue = errors.New("takes no value")

// SetSwitch is the Set function of a switch, an option with an empty Arg: it
// stores true. It is called with an empty value.
func SetSwitch(dst *bool) func(string) error {
	return func(value string) error {
		if value != "" {
			return fmt.Errorf("%q: %w", value, errNoValue)
		}
		*dst = true
		return nil
	}
}

// SetBool is the Set function of an option with a boolean value.
func SetBool(dst *bool) func(string) error {
	return func(value string) error {
		b, err := crypttab.ParseBool(value)
		if err == nil {
			*dst = b
		}
		return err
	}
}

// SetText is the Set function of an option that takes any text without control
// characters, such as a path.
func SetText(dst *string) func(string) error {
	return func(value string) error {
		if value == "" {
			return errors.New("the value is empty")
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%q has control characters", value)
		}
		*dst = value
		return nil
	}
}

// Unusable makes the Set function of an option in crypttab, where systemd takes any
// value: what set refuses costs the tokens of the type and no more.
func Unusable(set func(string) error) func(string) error {
	return func(value string) error {
		if err := set(value); err != nil {
			return &crypttab.UnusableError{Err: err}
		}
		return nil
	}
}
