package all

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestOrder wants what asks nothing of a person first and what a person types last.
func TestOrder(t *testing.T) {
	set := New()
	if first, last := set[0].Name(), set[len(set)-1].Name(); first != "tpm2" || last != "recovery" {
		t.Errorf("%s comes first, %s last", first, last)
	}
	if set.ByType("systemd-recovery") == nil {
		t.Error("recovery is not found by the type of its tokens")
	}
}

// TestEveryTypeIsDescribedAndTested wants the section of the formats and the conformance
// suite that tokens/doc.go asks for.
func TestEveryTypeIsDescribedAndTested(t *testing.T) {
	formats, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range New() {
		if !strings.Contains(string(formats), "\n## "+h.Type()+"\n") {
			t.Errorf("docs/formats.md has no section %s", h.Type())
		}
		if !runsSuite(t, filepath.Base(reflect.TypeOf(h).Elem().PkgPath())) {
			t.Errorf("the tests of %s do not call tokentest.Run", h.Name())
		}
	}
}

// runsSuite reports whether a type's folder has a test that calls the suite.
func runsSuite(t *testing.T, folder string) bool {
	t.Helper()
	files, err := filepath.Glob("../" + folder + "/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", folder, err)
	}
	return slices.ContainsFunc(files, func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), "tokentest.Run(")
	})
}

func TestNewReturnsNewHandlers(t *testing.T) {
	a, b := New(), New()
	for i := range a {
		if a[i] == b[i] {
			t.Errorf("%s is shared between two calls", a[i].Name())
		}
	}
}

// TestOptionsOfTypesDoNotClash wants each option to belong to one type.
func TestOptionsOfTypesDoNotClash(t *testing.T) {
	owner := map[string]string{}
	for _, h := range New() {
		for _, o := range h.Options() {
			if by, ok := owner[o.Name]; ok && by != h.Name() {
				t.Errorf("option %q is both of %s and of %s", o.Name, by, h.Name())
			}
			owner[o.Name] = h.Name()
		}
	}
}

// TestNoSheetInside keeps cryptsetup-unit small: what only cryptenroll needs to show
// a recovery key may not come in through the list of types.
func TestNoSheetInside(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "luksmith/tokens/all").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "luksmith/tokens/recovery") {
		t.Fatal("go list does not show what the package imports")
	}
	for _, heavy := range []string{"codeberg.org/go-pdf/fpdf", "github.com/skip2/go-qrcode", "golang.org/x/image/font/sfnt", "image/png"} {
		if slices.Contains(deps, heavy) {
			t.Errorf("tokens/all brings in %s", heavy)
		}
	}
}
