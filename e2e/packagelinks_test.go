package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestLinksOfPackagesNameNothingHere: nfpm looks for what a link names in the folder that
// it is started in, and packs a folder in place of the link if there is one. That way the
// package had no generator for systemd.
func TestLinksOfPackagesNameNothingHere(t *testing.T) {
	t.Parallel()
	links := regexp.MustCompile(`\{src: ([^,]+), dst: [^,]+, type: symlink`)
	lists, err := filepath.Glob("../internal/packages/nfpm*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range links.FindAllSubmatch(text, -1) {
			found++
			if _, err := os.Lstat(filepath.Join("..", string(m[1]))); err == nil {
				t.Errorf("%s: %s is a file here", list, m[1])
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d links in %q", found, lists)
	}
}
