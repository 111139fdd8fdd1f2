package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryCommandSpeaksJSON: with --json standard output is one document, also if the
// command fails or has no --json: the failure then, with the status.
func TestEveryCommandSpeaksJSON(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	table := write(t, filepath.Join(t.TempDir(), "crypttab"), []byte("v "+image+" - luks\n"), 0o600)
	succeeds := map[string]string{ // what a call that has --json prints
		"status":        `{"volumes":[`,
		"initrd needs":  `{"alone":[],"file":[]`,
		"crypttab lint": `{"files":[`,
		"crypttab set":  `{"file":"`,
	}
	if os.Geteuid() != 0 {
		delete(succeeds, "status") // only root may ask device-mapper
	}
	words := map[string][]string{"initrd needs": {"--crypttab=/dev/null"}, "crypttab lint": {table}, "crypttab set": {"--dry-run", "--file=" + table, image, "discard"}}
	for _, v := range verbs() {
		args := slices.Concat(strings.Fields(v.name), words[v.name], []string{"--json=short"})
		for _, more := range [][]string{nil, {"--nosuch"}, {"a", "b", "c", "d", "e", "f"}} {
			out, errOut, status := command(t, "cryptsetup-unit", slices.Concat(args, more)...)
			var document struct {
				Error *struct {
					Code    int
					Message string
				}
			}
			switch want := succeeds[v.name]; {
			case json.Unmarshal([]byte(out), &document) != nil:
				t.Errorf("%q %q: %q is no document; %s", args, more, out, errOut)
			case status == 0 && (more != nil && v.name != "crypttab set" || want == "" || !strings.HasPrefix(out, want)):
				t.Errorf("%q %q: status 0, %s", args, more, out)
			case status != 0 && (document.Error == nil || document.Error.Code != status || document.Error.Message == ""):
				t.Errorf("%q %q: status %d, %s", args, more, status, out)
			case status != 0 && more == nil && want != "":
				t.Errorf("%q: status %d, %s", args, status, errOut)
			}
		}
	}
}
