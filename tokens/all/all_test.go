package all

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestOrder wants the types that are there in the order of the design.
func TestOrder(t *testing.T) {
	order := []string{"tpm2", "fido2", "pkcs11", "combo", "recovery"}
	last := -1
	for _, h := range New() {
		at := slices.Index(order, h.Name())
		if at <= last {
			t.Errorf("%s is out of order or unknown", h.Name())
		}
		last = at
	}
	if New().ByType("systemd-recovery") == nil {
		t.Error("recovery is missing")
	}
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
