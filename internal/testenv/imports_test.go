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

// listPackages returns every package of the module, with cgo files seen.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Imports,TestImports,XTestImports", "luksmith/...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
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
		{"luksmith/internal/version", "luksmith/luks2/secret", "luksmith/luks2/argon2id", "luksmith/luks2/internal", "luksmith/crypttab"},
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
	return path == "luksmith/cryptenroll" || path == "luksmith/cryptsetup-unit" || strings.HasSuffix(path, "/luksmith-fido2") ||
		strings.HasSuffix(path, "/luksmith-pkcs11")
}

// TestImportsFlowOneWay is the rule of docs/architecture.md, "Imports".
func TestImportsFlowOneWay(t *testing.T) {
	owners := map[string][]string{ // third-party module: the packages that may use it
		"github.com/google/go-tpm/":       {"luksmith/tokens/tpm2", "luksmith/internal/testenv"},
		"github.com/google/go-eventlog/":  {"luksmith/tokens/tpm2"},
		"github.com/keys-pub/go-libfido2": {"luksmith/tokens/fido2/luksmith-fido2"},
		"github.com/miekg/pkcs11":         {"luksmith/tokens/pkcs11/luksmith-pkcs11"},
		"github.com/anatol/devmapper.go":  {"luksmith/luks2/dmcrypt"},
		"github.com/anatol/luks.go":       {"luksmith/luks2/dmcrypt"},
		"codeberg.org/go-pdf/fpdf/":       {"luksmith/tokens/recovery/sheet"},
		"golang.org/x/image/":             {"luksmith/tokens/recovery/sheet"},
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
