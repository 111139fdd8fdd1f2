package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// madeAtStart is a line of the runtime about the variables of a package of ours.
var madeAtStart = regexp.MustCompile(`(?m)^init (luksmith/\S+|main) @.* ([0-9]+) bytes, ([0-9]+) allocs$`)

// TestNothingIsMadeAtStart: tables, maps and closures in package variables took a
// twentieth of each start. What has to be computed is computed when it is asked for;
// errors are the exception, 16 bytes each.
func TestNothingIsMadeAtStart(t *testing.T) {
	if testing.Short() {
		NotApplicable(t, "short mode")
	}
	Need(t, "make", "git")
	dir := buildCommands(t, "../../..")
	for _, name := range []string{"cryptenroll", "cryptsetup-unit"} {
		cmd := exec.Command(filepath.Join(dir, name), "--version")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		made := 0
		for _, m := range madeAtStart.FindAllStringSubmatch(string(out), -1) {
			bytes, _ := strconv.Atoi(m[2])
			allocs, _ := strconv.Atoi(m[3])
			if made += allocs; bytes > 16*allocs {
				t.Errorf("%s: %s makes %d bytes in %d pieces when it starts", name, m[1], bytes, allocs)
			}
		}
		if made == 0 || made > 65 { // none: the lines look otherwise by now
			t.Errorf("%s makes %d errors when it starts; the Makefile (READY) has the packages whose errors the compiler makes", name, made)
		}
	}
}
