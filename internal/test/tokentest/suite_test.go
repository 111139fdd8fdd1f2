package tokentest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
)

func toySubject(fault string) Subject {
	return Subject{
		New:           func(*testing.T) tokens.Handler { return &Toy{Device: "present", fault: fault} },
		Absent:        func(*testing.T) tokens.Handler { return &Toy{Device: "/nonexistent", fault: fault} },
		EnrollAnswers: []string{"12345678"},
		UnlockAnswers: []string{"12345678"},
		Valid: []Fixture{
			{"pin", `{"type":"test-toy","keyslots":["1"],"toy-blob":"c2VhbGVk","toy-mask":"AAECAwQFBgc=","toy-pin":true}`},
			{"labelled", `{"type":"test-toy","keyslots":["1"],"toy-blob":"c2VhbGVk","toy-mask":"AAECAwQFBgc=","luksmith":{"label":"home"}}`},
		},
		Malformed: []Malformed{
			{"no mask", `{"type":"test-toy","keyslots":["1"],"toy-blob":"c2VhbGVk"}`, "toy-mask"},
			{"short mask", `{"type":"test-toy","keyslots":["1"],"toy-blob":"c2VhbGVk","toy-mask":"AAEC"}`, "toy-mask"},
		},
		Sealed: []string{"toy-blob"},
	}
}

func TestSuitePassesAGoodHandler(t *testing.T) { Run(t, toySubject("")) }

// TestSuiteFindsFaults runs the suite in a child on handlers that break one rule
// each, and looks for the subtest that has to fail.
func TestSuiteFindsFaults(t *testing.T) {
	if fault := os.Getenv("LUKSMITH_TEST_FAULT"); fault != "" {
		before := children(t)
		t.Cleanup(func() { reaped(children(t)[len(before):]) })
		Run(t, toySubject(fault))
		return
	}
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	t.Parallel()
	for fault, subtest := range map[string]string{
		"type": "identity", "devices": "devices", "plan": "plan",
		"option twice": "options", "option help": "options", "option accepts rubbish": "options", "option panics": "options",
		"option error": "options", "option refuses its values": "options",
		"option in a private field": "options", "option without a field": "options",
		"sealed": "describe/pin", "changes the token": "describe/pin", "requires": "mutated", "needs extra": "describe/pin", "label": "describe/pin", "case": "describe/pin",
		"panic": "malformed/no_mask", "no field": "mutated", "short mask": "malformed/short_mask",
		"deaf": "enroll/cancelled/after_0s", "device": "enroll/no_device", "child": "enroll/cancelled", "goroutine": "enroll/cancelled",
		"slow": "enroll/cancelled", "show": "enroll/result", "pin": "enroll/result", "extra": "enroll/result", "keyslots": "enroll/result",
		"kdf": "enroll/result", "same passphrase": "enroll/several", "stops": "unlock/after_malformed_ones", "twice": "unlock/after_malformed_ones",
		"passphrase": "unlock/opens_no_keyslot", "wrong passphrase": "unlock/own",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestSuiteFindsFaults$", "-test.failfast")
			cmd.Env = append(os.Environ(), "LUKSMITH_TEST_FAULT="+fault)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestSuiteFindsFaults/"+subtest) {
				t.Errorf("%v, want a failure of %s:\n%s", err, subtest, out)
			}
		})
	}
}

// reaped kills the children that the fault "child" leaves.
func reaped(pids []string) {
	for _, pid := range pids {
		var n int
		if _, err := fmt.Sscan(pid, &n); err == nil {
			if p, err := os.FindProcess(n); err == nil {
				_ = p.Kill()
				_, _ = p.Wait()
			}
		}
	}
}
