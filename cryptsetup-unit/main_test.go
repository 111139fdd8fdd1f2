package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/cli"
	"luksmith/luks2/dmcrypt"
)

// asCommand makes the test binary be the command, see TestMain.
const asCommand = "LUKSMITH_TEST_RUN_COMMAND"

// command runs cryptsetup-unit under a name.
func command(t *testing.T, name string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = name
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		status int
		out    string
		err    string
	}{
		"":                                 {1, "", "no command given\ncryptsetup-unit: hint: the commands are attach, attach-all, detach, status, key, initrd needs, initrd check, crypttab lint, crypttab set"},
		"--help":                           {0, "  cryptsetup-unit crypttab lint [OPTIONS] [FILE]\n", ""},
		"help":                             {0, "  cryptsetup-unit crypttab lint [OPTIONS] [FILE]\n", ""},
		"help detach":                      {0, "Remove a mapping\n\n  cryptsetup-unit detach VOLUME\n", ""},
		"help frobnicate":                  {1, "", `unknown command "frobnicate"`},
		"attach --help":                    {0, "cryptsetup-unit attach VOLUME [DEVICE [KEY-FILE] [OPTIONS]]\n", ""},
		"attach v /x - luks -h":            {0, "cryptsetup-unit attach VOLUME", ""},
		"attach-all --crypttab --help":     {0, "  --crypttab=FILE ", ""},
		"crypttab lint --help":             {0, "cryptsetup-unit crypttab lint [OPTIONS] [FILE]\n", ""},
		"attach -- --help x":               {1, "", `"x" is neither absolute`},
		"--version":                        {0, "cryptsetup-unit ", ""},
		"frobnicate":                       {1, "", `unknown command "frobnicate"`},
		"--frobnicate":                     {1, "", `unknown command "--frobnicate"`},
		"attach":                           {1, "", "attach: too few arguments\ncryptsetup-unit: hint: usage: cryptsetup-unit attach VOLUME [DEVICE"},
		"attach a b c d e":                 {1, "", "attach: too many arguments"},
		"detach":                           {1, "", "detach: too few arguments\ncryptsetup-unit: hint: usage: cryptsetup-unit detach VOLUME\n"},
		"detach a/b":                       {1, "", "the name holds the character"},
		"attach-all extra":                 {1, "", `has a volume "extra"`},
		"attach-all --crypttab":            {1, "", "--crypttab wants a value: --crypttab=FILE"},
		"attach-all --initrd=yes":          {1, "", "--initrd takes no value"},
		"atach v":                          {1, "", `unknown command "atach"; did you mean attach?`},
		"attach-all --crypttb=x":           {1, "", "attach-all: unknown option --crypttb; did you mean --crypttab?"},
		"attach-all --frob":                {1, "", "attach-all: unknown option --frob"},
		`status a\x20b`:                    {4, "", "a b is not attached"},
		"status --json=xml a":              {1, "", "status: --json: "},
		"crypttab":                         {1, "", "crypttab needs one of: lint, set\ncryptsetup-unit: hint: cryptsetup-unit help crypttab lint\n"},
		"crypttab frob":                    {1, "", `crypttab has no command "frob"`},
		"crypttab lnt x":                   {1, "", `crypttab has no command "lnt"; did you mean lint?`},
		"crypttab --help":                  {0, "  cryptsetup-unit crypttab lint [OPTIONS] [FILE]\n      Look for mistakes in crypttab\n  cryptsetup-unit crypttab set", ""},
		"attach --version v":               {0, "cryptsetup-unit ", ""},
		"crypttab lint /nonexistent":       {1, "", "no such file"},
		"attach -- -v sda":                 {1, "", `"sda" is neither absolute`},
		"attach v /dev/null - header=rel":  {1, "", "header=rel"},
		"attach v /dev/null - frob,plain":  {1, "", "unknown option"},
		"attach-all --crypttab=/no/file":   {1, "", "reading crypttab: stat /no/file: no such file"},
		"attach v /no/image":               {4, "", "attaching v: wrong device: /no/image: file does not exist\n"},
		"attach v /dev/zero":               {4, "", "attaching v: wrong device: opening /dev/zero: not a LUKS2 volume"},
		"attach-all --crypttab=/dev/null":  {1, "", "not a regular file"},
		"attach v /dev/null - luks,,swap,": {1, "", "swap is not supported here; run: cryptsetup open --type plain"},
	} {
		if strings.HasPrefix(line, "status a") && os.Geteuid() != 0 {
			continue // only root may ask device-mapper
		}
		out, errOut, status := command(t, "cryptsetup-unit", strings.Fields(line)...)
		if status != want.status || !strings.Contains(out, want.out) || !strings.Contains(errOut, want.err) {
			t.Errorf("%q: status %d\n%s%s", line, status, out, errOut)
		}
		if want.status != 0 && out != "" {
			t.Errorf("%q: errors on standard output: %q", line, out)
		}
	}
}

// TestHelpFits every terminal, in every character set.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	texts := []string{usage("cryptsetup-unit")}
	for _, v := range verbs() {
		texts = append(texts, v.usage("cryptsetup-unit"))
	}
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if len(line) > helpWidth+1 || strings.ContainsFunc(line, func(r rune) bool { return r > '~' }) {
				t.Errorf("%q", line)
			}
		}
	}
}

// TestOpenedByNamesTheKeyslot as everything else does.
func TestOpenedByNamesTheKeyslot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), "headless")
	if err != nil || !strings.HasSuffix(r.Opened.String(), ", keyslot 1 (password)") {
		t.Errorf("%v: %s", err, r.Opened)
	}
}

// TestKernelWithoutDeviceMapperIsSaidOnce for all volumes, with what helps.
func TestKernelWithoutDeviceMapperIsSaidOnce(t *testing.T) {
	t.Parallel()
	err := withModule(fmt.Errorf("%w: this kernel has no device-mapper (module dm_mod)", dmcrypt.ErrUnsupported))
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || !strings.HasPrefix(hinted.Hint(), "load the modules: `modprobe -a dm_mod dm_crypt`") {
		t.Errorf("%v", err)
	}
}

// TestExitStatusOfTheTwoNames: scripts get a status that says something, systemd's
// units 0 or 1.
func TestExitStatusOfTheTwoNames(t *testing.T) {
	t.Parallel()
	args := []string{"attach", "v", "/dev/null", "-", "x-systemd.device-timeout=1"}
	if _, errOut, status := command(t, "cryptsetup-unit", args...); status != 4 || !strings.Contains(errOut, "cryptsetup-unit: error: attaching v: ") {
		t.Errorf("status %d: %s", status, errOut)
	}
	if _, errOut, status := command(t, "systemd-cryptsetup", args...); status != 1 || !strings.Contains(errOut, "systemd-cryptsetup: error: ") {
		t.Errorf("as systemd's: status %d: %s", status, errOut)
	}
	if _, errOut, status := command(t, "systemd-cryptsetup", "attach", "v"); status != 1 || !strings.Contains(errOut, "attach: too few arguments") {
		t.Errorf("one argument: status %d: %s", status, errOut)
	}
}

// TestReadingStartsNoThreads: those that the runtime starts for signals were a tenth of
// every start. Whatever waits, asks or writes is ended by a signal in order.
func TestReadingStartsNoThreads(t *testing.T) {
	reading := []string{"status", "initrd needs", "initrd check", "crypttab lint"}
	for _, v := range verbs() {
		minded := false
		v.min, v.make = 0, func() ([]flag, func(*app, []string) error) {
			return nil, func(a *app, _ []string) error { minded = a.ctx.Done() != nil; return nil }
		}
		a := newApp(context.Background(), &cli.Messages{Name: "cryptsetup-unit", Err: cli.StreamTo(io.Discard)})
		if err := a.runVerb(&v, nil); err != nil || minded == slices.Contains(reading, v.name) {
			t.Errorf("%s: %v, minds signals: %v", v.name, err, minded)
		}
	}
}

func TestLintCommand(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	path := filepath.Join(t.TempDir(), "crypttab")
	for text, want := range map[string]struct {
		status int
		out    string
	}{
		"v " + image + " - luks,discard\n":                         {0, ""},
		"v " + image + " - discards\n":                             {0, path + `:1: warning: options: discards: unknown option, did you mean "discard"?` + "\n"},
		"v " + image + " - tpm2-device=auto\nw\x1b /nonexistent\n": {1, path + ":1: error: options: tpm2-device=: the header of " + image + " has no systemd-tpm2 token\n"},
		"v " + image + " - key-slot=7\n":                           {1, path + ":1: error: options: key-slot=: keyslot 7 of " + image + " is empty\n"},
	} {
		write(t, path, []byte(text), 0o600)
		out, errOut, status := command(t, "cryptsetup-unit", "crypttab", "lint", path)
		if status != want.status || !strings.Contains(out, want.out) || strings.Contains(out+errOut, "\x1b") {
			t.Errorf("%q: status %d\n%s%s", text, status, out, errOut)
		}
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Exit(run(os.Args))
	}
	code := m.Run()
	faultModule.Remove()
	cardHelper.Remove()
	os.Exit(code)
}
