package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/cli"
)

// TestHelpShowsNoInternalMarks: what an option without value stands for is not text
// for people.
func TestHelpShowsNoInternalMarks(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "list", "test", "label", "backup", "reseal", "doctor", "ensure", "predict", "policy", "policy verify", "pkcs11-upgrade"} {
		out, err := commandLine(t, nil, append(strings.Fields(command), "--help")...).Output()
		if err != nil || len(out) == 0 {
			t.Errorf("%q: %v", command, err)
		}
		if bytes.Contains(out, []byte("true|false")) || bytes.Contains(out, []byte("(default [")) || bytes.Contains(out, []byte("(default -")) || bytes.ContainsAny(out, "\x00\\") {
			t.Errorf("%q: %s", command, out)
		}
		for line := range strings.Lines(string(out)) {
			if len(line) > 81 {
				t.Errorf("%q: wider than 80 columns: %s", command, line)
			}
		}
		if command == "reseal" && !bytes.Contains(out, []byte("--keep-old[=LABEL]")) {
			t.Errorf("%s", out)
		}
	}
}

// TestWrongCallsAreExplained before the volume is looked at.
func TestWrongCallsAreExplained(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]string{
		"list a b":                    "hint: see how it is called: cryptenroll list --help",
		"label a":                     "hint: see how it is called: cryptenroll label --help",
		"lst a":                       `unknown command "lst"; did you mean list?`,
		"lst":                         `unknown command "lst"; did you mean list?`,
		"policy verfy a":              `policy has no command "verfy"; did you mean verify?`,
		"policy":                      "policy needs a command: verify",
		"label a 1":                   "label takes DEVICE SLOT NAME",
		"--passwrd a":                 "unknown option --passwrd; did you mean --password?",
		"--tpm2-device":               "--tpm2-device= needs a value",
		"doctor --tpm2-device=auto a": "unknown option --tpm2-device; did you mean --unlock-tpm2-device?",
		"--qqqqqqqq a":                "unknown option --qqqqqqqq\n",
		"-p a":                        "there is no option -p",
		"--json=xml a":                `--json takes pretty, short or off, not "xml"`,
		"--yes=perhaps a":             `--yes takes no value, not "perhaps"`,
		"reseal --drp=a b":            "unknown option --drp; did you mean --drop?",
		"test --slot=99 a":            `--slot: "99" is not a keyslot number (0 to 31)`,
	} {
		cmd := commandLine(t, nil, strings.Fields(call)...)
		out, _ := cmd.CombinedOutput()
		status := cmd.ProcessState.ExitCode()
		if !bytes.Contains(out, []byte(want)) || status != cli.ExitFailure && status != cli.ExitWrongDevice {
			t.Errorf("%s: status %d: %s", call, status, out)
		}
	}
}

// TestFailuresAreJSONToo: one document with the status, on standard output.
func TestFailuresAreJSONToo(t *testing.T) {
	t.Parallel()
	for call, code := range map[string]int{
		"--json=short --passwrd nosuch.img": 1,
		"--passwrd --json=short nosuch.img": 1,
		"list --json=short nosuch.img":      4,
		"label --json=short nosuch.img 0 x": 4,
		"backup --json=short nosuch.img x":  4,
		"test --json=short nosuch.img":      4,
	} {
		cmd := commandLine(t, nil, strings.Fields(call)...)
		out, _ := cmd.Output()
		var v struct {
			Error struct {
				Code          int
				Message, Hint string
			}
		}
		if err := json.Unmarshal(out, &v); err != nil || v.Error.Code != code || v.Error.Message == "" || cmd.ProcessState.ExitCode() != code {
			t.Errorf("%s: status %d, %v, %s", call, cmd.ProcessState.ExitCode(), err, out)
		}
	}
}

// TestVolumeCalledAsACommand: nobody gets the command where the volume was meant.
func TestVolumeCalledAsACommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "test"), []byte("LUKS\xba\xbe and more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string]string{
		"test":                "test is a command, which would need a device behind it, and a volume in this folder",
		"--recovery-key test": "test is a command, which would need a device behind it, and a volume in this folder",
		"test other.img":      "other.img",
		"./test":              "./test",
	} {
		cmd := commandLine(t, nil, strings.Fields(call)...)
		cmd.Dir = dir
		if out, _ := cmd.CombinedOutput(); !bytes.Contains(out, []byte(want)) || want[0] == 't' && !bytes.Contains(out, []byte("cryptenroll ./test")) {
			t.Errorf("%s: %s", call, out)
		}
	}
}
