package main

import (
	"errors"

	"github.com/spf13/pflag"
)

// onceOptions ask for one thing each: given twice they are refused, as systemd does.
// Those of token types that enrol or unlock are counted by options.choose.
var onceOptions = []string{"password", "recovery-key", "tpm2-change-pin", "unlock-key-file", "unlock-empty", "unlock-headless"}

var (
	errTwice = errors.New("is given twice")
	errEmpty = errors.New("needs a value")
)

// once is the value of such an option.
type once struct {
	pflag.Value
	given bool
}

func (o *once) Set(text string) error {
	switch {
	case o.given:
		return errTwice
	case text == "" && o.Type() == "string":
		return errEmpty
	}
	o.given = true
	return o.Value.Set(text)
}

// valueOf is what an option was made with.
func valueOf(f *pflag.Flag) pflag.Value {
	if o, ok := f.Value.(*once); ok {
		return o.Value
	}
	return f.Value
}

// refuseTwice has the options of a command be given once.
func refuseTwice(flags *pflag.FlagSet) {
	for _, name := range onceOptions {
		if f := flags.Lookup(name); f != nil {
			f.Value = &once{Value: f.Value}
		}
	}
}
