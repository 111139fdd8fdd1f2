package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// systemdCalls are argument lists that need neither device nor device-mapper. Each is
// given to systemd-cryptsetup and to ours under that name.
var systemdCalls = [][]string{
	{}, {"--help"}, {"-h"}, {"help"}, {"help", "attach"}, {"attach", "--help"}, {"attach", "v", "-h"}, {"attach", "v", "/nonexistent", "-", "luks", "--help"}, {"detach", "v", "--help"},
	{"attach"}, {"attach", "v"}, {"attach", "v", "/nonexistent"}, {"attach", "v", "/nonexistent", ""}, {"attach", "v", "/nonexistent", "-"}, {"attach", "v", "/nonexistent", "none", "none"},
	{"attach", "v", "/nonexistent", "", ""}, {"attach", "v", "/nonexistent", "-", "-"}, {"attach", "v", "/nonexistent", "rel"}, {"attach", "v", "/nonexistent", "/nokey", "luks,discard"},
	{"attach", "v", "/nonexistent", "-", "-", "more"}, {"attach", "--", "v", "/nonexistent"}, {"attach", "v", "--frob"}, {"attach", "-", "/nonexistent"}, {"attach", "v", ""}, {"attach", "v", "rel"},
	{"attach", "a/b", "/nonexistent"}, {"attach", "", "/nonexistent"}, {"attach", ".", "/nonexistent"}, {"attach", "v", "/nonexistent", "-", "header=rel"}, {"attach", "v", "/nonexistent", "-", "frob"},
	{"attach", strings.Repeat("n", 256), "/nonexistent"},
	{"detach"}, {"detach", "no-such-mapping"}, {"detach", "a/b"}, {"detach", ""}, {"frob"}, {"frob", "x", "y"}, {"atta", "v", "/nonexistent"}, {"--frob"}, {"--frob", "x", "y"},
}

// compareCalls compares exit status and whether the help is printed.
func compareCalls(t *testing.T, systemd func(args ...string) *exec.Cmd) {
	t.Helper()
	for _, args := range systemdCalls {
		if slices.Contains(args, "no-such-mapping") && os.Geteuid() != 0 {
			continue // only root may ask device-mapper
		}
		cmd := systemd(args...)
		theirs, _ := cmd.Output()
		ours, errOut, status := command(t, "systemd-cryptsetup", args...)
		if want := cmd.ProcessState.ExitCode(); status != want {
			t.Errorf("%q: status %d, systemd %d\n%s", args, status, want, errOut)
		}
		const usage = "systemd-cryptsetup attach VOLUME"
		if got, want := strings.Contains(ours, usage), strings.Contains(string(theirs), usage); got != want {
			t.Errorf("%q: help on standard output: %v, systemd %v", args, got, want)
		}
		if status != 0 && (errOut == "" || ours != "") {
			t.Errorf("%q: an error belongs on standard error: %q, %q", args, ours, errOut)
		}
	}
}

func TestArgumentsLikeInstalledSystemd(t *testing.T) {
	t.Parallel()
	const program = "/lib/systemd/systemd-cryptsetup"
	if _, err := os.Stat(program); err != nil {
		testenv.Missing(t, program, "sh .ci/install-deps installs it")
	}
	compareCalls(t, func(args ...string) *exec.Cmd { return exec.Command(program, args...) })
}

func TestArgumentsLikeSystemd257(t *testing.T) {
	t.Parallel()
	tree := testenv.Systemd257(t)
	compareCalls(t, func(args ...string) *exec.Cmd { return tree.Command(nil, "/usr/bin/systemd-cryptsetup", args...) })
}
