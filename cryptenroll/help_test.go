package main

import (
	"bytes"
	"strings"
	"testing"

	"luksmith/internal/cli"
)

// TestHelpShowsNoInternalMarks: what an option without value stands for is not text
// for people.
func TestHelpShowsNoInternalMarks(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "list", "test", "label", "backup", "reseal", "policy", "pkcs11-upgrade"} {
		out, err := commandLine(t, nil, append(strings.Fields(command), "--help")...).Output()
		if err != nil || len(out) == 0 {
			t.Errorf("%q: %v", command, err)
		}
		if bytes.Contains(out, []byte("true|false")) || bytes.Contains(out, []byte("(default [")) || bytes.Contains(out, []byte("(default -")) || bytes.ContainsAny(out, "\x00\\") {
			t.Errorf("%q: %s", command, out)
		}
		if command == "reseal" && !bytes.Contains(out, []byte("--keep-old[=LABEL] ")) {
			t.Errorf("%s", out)
		}
	}
}

// TestWrongCallsAreExplained before the volume is looked at.
func TestWrongCallsAreExplained(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]string{
		"list a b":   "hint: cryptenroll list [DEVICE]",
		"label a":    "hint: cryptenroll label DEVICE SLOT NAME",
		"lst a":      `["lst" "a"]: one device can be listed at a time`,
		"--nosuch a": "unknown flag: --nosuch",
	} {
		cmd := commandLine(t, nil, strings.Fields(call)...)
		out, _ := cmd.CombinedOutput()
		status := cmd.ProcessState.ExitCode()
		if !bytes.Contains(out, []byte(want)) || status != cli.ExitFailure && status != cli.ExitWrongDevice {
			t.Errorf("%s: status %d: %s", call, status, out)
		}
	}
}
