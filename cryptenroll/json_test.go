package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryVerbFailsInJSON: whoever reads a document finds the failure in it, with the
// status of the command, whatever the verb. Further verbs of policy and recovery are
// among the words.
func TestEveryVerbFailsInJSON(t *testing.T) {
	t.Parallel()
	further := map[string][][]string{
		"label": {{"DEVICE", "0", "x"}}, "backup": {{"DEVICE", "copy"}}, "ensure": {{"--spec=nosuch.yaml", "DEVICE"}},
		"policy": {{"verify", "DEVICE"}}, "recovery": {{"rotate", "DEVICE"}, {"check", "DEVICE", "nosuch"}},
	}
	calls := map[string][][]string{"": {{"DEVICE"}, {"--recovery-key", "DEVICE"}, {"--wipe-slot=tpm2", "DEVICE"}, {"--nosuch", "DEVICE"}}}
	for _, v := range verbTable {
		if calls[v.name] = further[v.name]; calls[v.name] == nil {
			calls[v.name] = [][]string{{"DEVICE"}}
		}
	}
	absent := filepath.Join(t.TempDir(), "absent.img")
	for verb, list := range calls {
		for _, words := range list {
			var args []string
			if verb != "" {
				args = append(args, verb)
			}
			for _, w := range words {
				args = append(args, strings.Replace(w, "DEVICE", absent, 1))
			}
			failsInJSON(t, append(args, "--json=short"))
		}
	}
}

func failsInJSON(t *testing.T, args []string) {
	t.Helper()
	r := runCommand(t, alone(t, nil, args...))
	var document struct {
		Error *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &document); err != nil {
		t.Errorf("%q: %v in %q; %s", args, err, r.stdout, r.stderr)
		return
	}
	if r.status == 0 || document.Error == nil || document.Error.Code != r.status || document.Error.Message == "" {
		t.Errorf("%q: status %d, document %s", args, r.status, r.stdout)
	}
}
