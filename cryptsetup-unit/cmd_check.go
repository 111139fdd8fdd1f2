package main

import (
	"fmt"
	"os"
	"syscall"

	"luksmith/internal/cli"
	"luksmith/internal/helper"
)

// checker is the program that reads images. What unpacks them would double this one,
// which is read at every boot.
const checker = "luksmith-initrd"

// checkVerb is initrd check IMAGE.
func checkVerb() ([]flag, func(*app, []string) error) {
	device := ""
	var json cli.JSONMode
	flags := []flag{
		{"volume", "DEVICE", "the volume that has to be opened", func(v string) error { device = v; return nil }},
		{"json", json.Type(), "print one JSON document", json.Set},
	}
	return flags, func(_ *app, args []string) error {
		words := []string{checker, "--json=" + json.String()}
		if device != "" {
			words = append(words, "--volume="+device)
		}
		return becomeHelper(append(words, "--", args[0]))
	}
}

// becomeHelper runs a helper in place of this program.
func becomeHelper(words []string) error {
	path, err := helper.Find(words[0])
	if err == nil {
		err = syscall.Exec(path, words, os.Environ())
	}
	return fmt.Errorf("starting %s: %w", words[0], err)
}
