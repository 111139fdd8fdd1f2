package tokens

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
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
		b, err := ParseBool(value)
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

// ParseBool understands the words of systemd's options (systemd 262
// src/basic/parse-util.c, parse_boolean), in any case.
func ParseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", value)
}
