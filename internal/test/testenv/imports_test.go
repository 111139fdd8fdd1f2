package testenv

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
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

// layers orders the packages: an import goes to a lower layer or stays within its
// own. The longest prefix that fits counts. docs/architecture.md shows the table.
var layers = []struct {
	level  int
	prefix string
}{
	{0, "luksmith/internal/version"},
	{0, "luksmith/internal/socket"},
	{0, "luksmith/internal/durable"},
	{0, "luksmith/luks2/secret"},
	{0, "luksmith/luks2/argon2id"},
	{0, "luksmith/luks2/internal"},
	{0, "luksmith/crypttab"},
	{1, "luksmith/luks2"},
	{2, "luksmith/luks2/dmcrypt"},
	{2, "luksmith/internal/helper"},
	{3, "luksmith/tokens"},
	{4, "luksmith/tokens/"}, // the token types
	{5, "luksmith/tokens/all"},
	{4, "luksmith/internal/contest"},
	{6, "luksmith/internal"},
	{7, "luksmith/cryptenroll"},
	{7, "luksmith/cryptsetup-unit"},
	{7, "luksmith/e2e"},
}

// layer is the level of a package, -1 if the table does not know it.
func layer(path string) int {
	level, longest := -1, -1
	for _, l := range layers {
		inside := path == l.prefix || strings.HasPrefix(path, strings.TrimSuffix(l.prefix, "/")+"/")
		if inside && (path != strings.TrimSuffix(l.prefix, "/") || !strings.HasSuffix(l.prefix, "/")) && len(l.prefix) > longest {
			level, longest = l.level, len(l.prefix)
		}
	}
	return level
}

// forTests holds what only tests use.
const forTests = "luksmith/internal/test/"

// tokenType is the folder below tokens that a package belongs to, if it is a type.
func tokenType(path string) string {
	rest, ok := strings.CutPrefix(path, "luksmith/tokens/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	if name == "all" {
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
		"github.com/google/go-tpm/":       {"luksmith/tokens/tpm2", "luksmith/tokens/tpm2/chip", "luksmith/tokens/tpm2/policy", "luksmith/internal/test/testenv"},
		"github.com/google/go-eventlog/":  {"luksmith/tokens/tpm2"},
		"github.com/keys-pub/go-libfido2": {"luksmith/tokens/fido2/luksmith-fido2"},
		"github.com/miekg/pkcs11":         {"luksmith/tokens/pkcs11/luksmith-pkcs11"},
		"github.com/anatol/devmapper.go":  {"luksmith/luks2/dmcrypt"},
		"github.com/anatol/luks.go":       {"luksmith/luks2/dmcrypt"},
		"github.com/diskfs/go-diskfs/":    {}, // tests compare internal/gpt with it
		"codeberg.org/go-pdf/fpdf/":       {drawing},
		"golang.org/x/image/":             {drawing},
		drawing + "/":                     {"luksmith/tokens/recovery/luksmith-sheet"},
		"golang.org/x/crypto/argon2":      {}, // tests compare luks2/argon2id with it
		"github.com/skip2/go-qrcode":      {"luksmith/tokens/recovery/qr"},
		"go.yaml.in/yaml/":                {"luksmith/internal/spec"},
		"github.com/santhosh-tekuri/":     {}, // tests judge by the published schema
		"github.com/varlink/go/":          {"luksmith/internal/varlinkapi"},
		"filippo.io/age/":                 {"luksmith/tokens/recovery/escrow"},
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
			if strings.HasPrefix(imp, forTests) && !strings.HasPrefix(p.ImportPath, forTests) && !strings.HasPrefix(p.ImportPath, "luksmith/e2e") {
				t.Errorf("%s imports the test package %s", p.ImportPath, imp)
			}
			if a, b := tokenType(p.ImportPath), tokenType(imp); a != "" && b != "" && a != b {
				t.Errorf("token type %s imports token type %s", a, b)
			}
		}
	}
}

// TestArchitectureNamesEveryFolder with code in it, by its last name at least.
func TestArchitectureNamesEveryFolder(t *testing.T) {
	text, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range listPackages(t) {
		name := path.Base(p.ImportPath)
		if strings.HasPrefix(name, "luksmith-") {
			name = "luksmith-*"
		}
		if !regexp.MustCompile("[`/]" + regexp.QuoteMeta(name) + "/?`").Match(text) {
			t.Errorf("docs/architecture.md does not say what is in %s", p.ImportPath)
		}
	}
}

// TestCommandsCarryNothingToDraw: the PDF library, fonts and image code made
// cryptenroll a quarter larger and every start of it a fifth slower. Of the latter
// it has what go-qrcode imports; the boot helper has none.
func TestCommandsCarryNothingToDraw(t *testing.T) {
	drawn := []string{drawing, "codeberg.org/go-pdf/", "golang.org/x/image/"}
	for program, heavy := range map[string][]string{
		"luksmith/cryptenroll/...":     drawn,
		"luksmith/cryptsetup-unit/...": append(drawn, "hash/crc32", "image", "github.com/skip2/", "go.yaml.in/", "filippo.io/", "github.com/varlink/"),
	} {
		for imp := range strings.Lines(goList(t, "-deps", program)) {
			for _, h := range heavy {
				if imp = strings.TrimSpace(imp); strings.HasPrefix(imp+"/", strings.TrimSuffix(h, "/")+"/") {
					t.Errorf("%s carries %s", program, imp)
				}
			}
		}
	}
}
