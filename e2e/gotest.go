package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testEvent is one line of go tool test2json.
type testEvent struct {
	Action, Test, Output string
	Elapsed              float64 // seconds
}

// packageTimeout is the longest that the tests of one package may take in the guest.
const packageTimeout = 9 * time.Minute

// RunGoTests compiles the tests of a package of the module, runs those that match
// the pattern in the guest, and reports each as a subtest of t. They find their
// testdata, and that of the other packages given, where they are in the module.
func (vm *VM) RunGoTests(t *testing.T, pkg, pattern string, testdata ...string) {
	t.Helper()
	binary := artefact(t, strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-")+".test", func(out string) error {
		return goCommand("test", "-c", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	})
	const module = "/run/module"
	for _, p := range append(testdata, pkg) {
		dir := path.Join(module, p)
		vm.Shell(t, "mkdir -p "+dir+" && rm -rf "+dir+"/testdata && ln -s "+vm.Push(t, filepath.Join("..", p, "testdata"))+" "+dir+"/testdata")
	}
	r := vm.Start(t, Command{
		Args: []string{vm.Push(t, binary), "-test.v=test2json", "-test.run=" + pattern, "-test.timeout=" + packageTimeout.String()},
		Dir:  path.Join(module, pkg),
		Env:  requireAll(),
	}).waitFor(t, packageTimeout+runTimeout)
	ran := reportTests(t, r.Stdout)
	if r.Status != 0 && !t.Failed() {
		t.Errorf("tests of %s in the guest: exit status %d\n%s%s", pkg, r.Status, r.Stdout, r.Stderr)
	}
	if ran == 0 {
		t.Errorf("no test of %s matches %s\n%s", pkg, pattern, r.Stderr)
	}
}

// reportTests turns the output of a test binary into subtests and returns how
// many there were.
func reportTests(t *testing.T, output string) int {
	t.Helper()
	cmd := exec.Command("go", "tool", "test2json", "-t")
	cmd.Stdin = strings.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	outputs := map[string]string{}
	ran := 0
	for dec := json.NewDecoder(bytes.NewReader(events)); dec.More(); {
		var e testEvent
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(e.Test, "/")
		outputs[name] += e.Output
		if e.Test == "" || e.Test != name || (e.Action != "pass" && e.Action != "fail" && e.Action != "skip") {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			switch t.Logf("%.1f s in the guest", e.Elapsed); e.Action {
			case "fail":
				t.Error("in the guest:\n" + outputs[name])
			case "skip":
				t.Skip("in the guest:\n" + outputs[name])
			}
		})
	}
	return ran
}

// requireAll passes the setting of the run on, so that a test which skips in the
// guest for want of something installable fails there too.
func requireAll() []string {
	if v := os.Getenv("REQUIRE_ALL"); v != "" {
		return []string{"REQUIRE_ALL=" + v}
	}
	return nil
}
