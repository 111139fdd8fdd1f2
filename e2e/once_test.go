package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// onceRecord has a line for each test that has passed: the package's hash and its name.
const onceRecord = "../build/e2e-passed"

// once notes that a test of `make e2e` has passed, and skips it if it has done so before
// with the very same package and `make e2e RESUME=yes` is what runs. A test that others
// are below must not call it, because a call can run some of these.
func once(t *testing.T) {
	t.Helper()
	line := onceLine(t, "../build/packages/luksmith_*.deb")
	if line == "" {
		return
	}
	passed, _ := os.ReadFile(onceRecord)
	if os.Getenv("LUKSMITH_E2E") == "resume" && strings.Contains(string(passed), line) {
		testenv.NotApplicable(t, "passed before, see "+onceRecord)
	}
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		f, err := os.OpenFile(onceRecord, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := f.WriteString(line); err != nil {
			t.Error(err)
		}
	})
}

// onceLine is empty where there is no package.
func onceLine(t *testing.T, pattern string) string {
	debs, _ := filepath.Glob(pattern)
	if len(debs) != 1 {
		return ""
	}
	deb, err := os.ReadFile(debs[0])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x %s\n", sha256.Sum256(deb), t.Name())
}
