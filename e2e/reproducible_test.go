package e2e

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestPackagesAreReproducible makes the packages again and compares: the same sources
// give the same bytes.
func TestPackagesAreReproducible(t *testing.T) {
	testenv.NeedEndToEnd(t)
	first := packageHashes(t)
	if len(first) == 0 {
		testenv.Missing(t, "packages below build/packages", "make packages")
	}
	testenv.Run(t, "make", "-C", "..", "packages")
	if again := packageHashes(t); !maps.Equal(first, again) {
		t.Errorf("the packages differ:\n%v\n%v", first, again)
	}
}

func packageHashes(t *testing.T) map[string]string {
	t.Helper()
	hashes := map[string]string{}
	paths, _ := filepath.Glob("../build/packages/luksmith*")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		hashes[filepath.Base(path)] = fmt.Sprintf("%x", sha256.Sum256(b))
	}
	return hashes
}
