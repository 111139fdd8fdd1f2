package testenv

import (
	"crypto/sha256"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildCommands runs `make commands` in a copy of the tree and returns the folder
// with the results.
func buildCommands(t *testing.T, root string) string {
	t.Helper()
	tree, out := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	files := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.go", "*.s", "*.h", "*.varlink", "go.mod", "go.sum", "Makefile")
	files.Dir = root
	list, err := files.Output()
	if err != nil {
		NotApplicable(t, "not a git checkout: "+err.Error())
	}
	for name := range strings.Lines(string(list)) {
		name = strings.TrimSpace(name)
		b, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) { // deleted and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("make", "-s", "commands", "BUILD="+out)
	cmd.Dir = tree
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, b)
	}
	return out
}

// TestCommandsAreStaticAndReproducible builds them in two folders.
func TestCommandsAreStaticAndReproducible(t *testing.T) {
	if testing.Short() {
		NotApplicable(t, "short mode")
	}
	Need(t, "make", "git")
	const mega = 1_000_000
	first, second := buildCommands(t, "../../.."), buildCommands(t, "../../..")
	for name, limit := range map[string]int{"cryptenroll": 0, "cryptsetup-unit": 6.5 * mega} {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(a) != sha256.Sum256(b) {
			t.Errorf("%s differs between two folders", name)
		}
		if limit != 0 && len(a) > limit {
			t.Errorf("%s has %d bytes, promised are %d", name, len(a), limit)
		}
		f, err := elf.Open(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is dynamic: %v", name, p.Type)
			}
		}
		t.Logf("%s: %d bytes", name, len(a))
	}
}
