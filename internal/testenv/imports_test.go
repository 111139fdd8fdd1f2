package testenv

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// goList runs go list, with cgo files seen.
func goList(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

// listPackages returns every package of the module.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	out := goList(t, "-json=ImportPath,Name,Imports,TestImports,XTestImports", "luksmith/...")
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// layer orders the packages: an import must go to a lower or the same layer, and
// within tokens never from one type to another.
func layer(path string) int {
	for i, prefixes := range [][]string{
		{"luksmith/internal/version", "luksmith/internal/socket", "luksmith/luks2/secret", "luksmith/luks2/argon2id", "luksmith/luks2/internal", "luksmith/crypttab"},
		{"luksmith/luks2/luks2test", "luksmith/luks2/dmcrypt"}, // above luks2, placed by the exact match below
		{"luksmith/internal/helper"},
		{"luksmith/tokens/fido2/fidotest"}, // for tests only, see below
		{"luksmith/tokens/all"},
		{"luksmith/tokens/"},
		{"luksmith/internal/"},
		{"luksmith/cryptenroll", "luksmith/cryptsetup-unit", "luksmith/e2e"},
	} {
		for _, p := range prefixes {
			if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
				return []int{0, 2, 2, 6, 5, 4, 6, 7}[i]
			}
		}
	}
	switch path {
	case "luksmith/luks2":
		return 1
	case "luksmith/tokens":
		return 3
	}
	return -1
}

// tokenType is the folder below tokens that a package belongs to, if it is a type.
func tokenType(path string) string {
	rest, ok := strings.CutPrefix(path, "luksmith/tokens/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	if name == "all" || name == "tokentest" {
		return ""
	}
	return name
}

func isCommand(path string) bool {
	return path == "luksmith/cryptenroll" || path == "luksmith/cryptsetup-unit" || strings.Contains(path, "/luksmith-")
}

// drawing is the package that draws recovery sheets.
const drawing = "luksmith/tokens/recovery/sheet/draw"

// TestImportsFlowOneWay is the rule of docs/architecture.md, "Imports".
func TestImportsFlowOneWay(t *testing.T) {
	owners := map[string][]string{ // module or package: the packages that may use it
		"github.com/google/go-tpm/":       {"luksmith/tokens/tpm2", "luksmith/internal/testenv"},
		"github.com/google/go-eventlog/":  {"luksmith/tokens/tpm2"},
		"github.com/keys-pub/go-libfido2": {"luksmith/tokens/fido2/luksmith-fido2"},
		"github.com/miekg/pkcs11":         {"luksmith/tokens/pkcs11/luksmith-pkcs11"},
		"github.com/anatol/devmapper.go":  {"luksmith/luks2/dmcrypt"},
		"github.com/anatol/luks.go":       {"luksmith/luks2/dmcrypt"},
		"codeberg.org/go-pdf/fpdf/":       {drawing},
		"golang.org/x/image/":             {drawing},
		drawing + "/":                     {"luksmith/tokens/recovery/luksmith-sheet"},
		"golang.org/x/crypto/argon2":      {}, // tests compare luks2/argon2id with it
		"rsc.io/qr/":                      {"luksmith/tokens/recovery/qr"},
	}
	for _, p := range listPackages(t) {
		from := layer(p.ImportPath)
		if from < 0 {
			t.Errorf("%s has no layer: add it to layer() and docs/architecture.md", p.ImportPath)
		}
		for _, imp := range p.Imports {
			for module, users := range owners {
				if strings.HasPrefix(imp+"/", module) && !slices.Contains(users, p.ImportPath) {
					t.Errorf("%s imports %s: only %v may", p.ImportPath, imp, users)
				}
			}
			if (imp == "log" || imp == "log/slog") && !isCommand(p.ImportPath) && p.ImportPath != "luksmith/internal/cli" {
				t.Errorf("%s imports %s: libraries do not print", p.ImportPath, imp)
			}
			if !strings.HasPrefix(imp, "luksmith/") {
				if p.ImportPath == "luksmith/crypttab" && strings.Contains(imp, ".") {
					t.Errorf("crypttab imports %s: standard library only", imp)
				}
				continue
			}
			if layer(imp) > from {
				t.Errorf("%s imports %s, which lies above it", p.ImportPath, imp)
			}
			if isCommand(imp) {
				t.Errorf("%s imports the command %s", p.ImportPath, imp)
			}
			if imp == "luksmith/internal/testenv" || imp == "luksmith/luks2/luks2test" || imp == "luksmith/tokens/tokentest" ||
				imp == "luksmith/tokens/fido2/fidotest" {
				if isCommand(p.ImportPath) {
					t.Errorf("the command %s imports the test package %s", p.ImportPath, imp)
				}
			}
			if a, b := tokenType(p.ImportPath), tokenType(imp); a != "" && b != "" && a != b {
				t.Errorf("token type %s imports token type %s", a, b)
			}
		}
	}
}

// TestCommandsCarryNothingToDraw: the PDF library, fonts and image code made
// cryptenroll a quarter larger and every start of it a fifth slower.
func TestCommandsCarryNothingToDraw(t *testing.T) {
	carried := goList(t, "-deps", "luksmith/cryptenroll/...", "luksmith/cryptsetup-unit/...", "luksmith/tokens/all",
		"luksmith/tokens/recovery/sheet", "luksmith/tokens/recovery/qr")
	for imp := range strings.Lines(carried) {
		for _, heavy := range []string{drawing, "codeberg.org/go-pdf/", "golang.org/x/image/", "image"} {
			if imp = strings.TrimSpace(imp); strings.HasPrefix(imp+"/", strings.TrimSuffix(heavy, "/")+"/") {
				t.Errorf("the commands carry %s", imp)
			}
		}
	}
}
