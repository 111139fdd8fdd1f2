//go:build cgo

// Command luksmith-fido2 talks to FIDO2 keys for cryptenroll and cryptsetup-unit.
// It is the only program of the project that is linked to libfido2, and speaks the
// protocol of package wire on its input and output. It is not for people.
package main

import (
	"fmt"
	"os"

	"luksmith/internal/helper"
	"luksmith/tokens/fido2/wire"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", wire.Program, err)
		os.Exit(1)
	}
}

func run() error {
	if err := helper.Confine(); err != nil {
		return err
	}
	return helper.Serve(wire.Program, os.Stdin, os.Stdout, wire.Methods(func(notify func(event string)) wire.Backend {
		return &library{notify: notify}
	}))
}
