package main

import (
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/seen"
	"luksmith/internal/test/testenv"
)

// TestWhatAPersonSees runs the commands of testdata/seen at terminals and a pipe, and
// looks at each screen: no line is wider than the terminal, no sequence goes where none
// may, and the result stands at the end. `-v` prints the screens.
func TestWhatAPersonSees(t *testing.T) {
	testenv.Need(t, "cryptsetup", "swtpm", "swtpm_setup", "softhsm2-util", "tpm2_dictionarylockout")
	params := scriptParams(t, "testdata/seen")
	params.ContinueOnError = true
	params.Cmds["answer"] = cmdAnswer
	params.Cmds["seen"] = cmdSeen
	testscript.Run(t, params)
}

// cmdSeen runs a shell command once in each view, on copies of *.img, and wants this
// status and last message: `seen STATUS LAST COMMAND`.
func cmdSeen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: seen STATUS LAST COMMAND")
	}
	const again = `rm -rf .seen && mkdir .seen && for i in *.img; do cp --sparse=always "$i" .seen/; done &&
		{ [ -z "$TCTI" ] || tpm2_dictionarylockout --tcti "$TCTI" -c; }`
	for _, v := range seen.Views() {
		ts.Check(ts.Exec("sh", "-c", again))
		cmd := exec.Command("sh", "-c", args[2])
		cmd.Dir = ts.MkAbs(".seen")
		for _, name := range []string{"PATH", "TPM", "KEY", "HOME", "TMPDIR", "SOFTHSM2_CONF", "PASSWORD"} {
			if value := ts.Getenv(name); value != "" {
				cmd.Env = append(cmd.Env, name+"="+value)
			}
		}
		status, text, faults, err := v.Look(cmd, devicesOf(ts).answers)
		ts.Check(err)
		ts.Logf("--- %s: %s\n%s", v.Name, args[2], text)
		if len(faults) > 0 {
			ts.Fatalf("%s: %q", v.Name, faults)
		}
		if strconv.Itoa(status) != args[0] || !seen.EndsWith(text, args[1]) {
			ts.Fatalf("%s: status %d, and this is not the end: %s", v.Name, status, args[1])
		}
	}
}
