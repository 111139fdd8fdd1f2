package kmodindex_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/initramfs/kmodindex"
	"luksmith/internal/test/testenv"
)

// lists has depmod make the lists of a kernel that has a few modules built in.
func lists(t testing.TB) string {
	t.Helper()
	testenv.Need(t, "depmod")
	root := t.TempDir()
	dir := filepath.Join(root, "lib/modules/6.12")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"modules.order": "", "modules.builtin": "kernel/crypto/aes_generic.ko\nkernel/crypto/algapi.ko\nkernel/drivers/char/tpm/tpm.ko\nkernel/drivers/char/tpm/tpm-crb.ko\n",
		"modules.builtin.modinfo": "aes_generic.alias=crypto-aes\x00aes_generic.alias=crypto-aes-generic\x00tpm.license=GPL\x00tpm_crb.alias=acpi*:MSFT0101:*\x00",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("depmod", "-b", root, "6.12").CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, out)
	}
	return dir
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestListsOfDepmod(t *testing.T) {
	t.Parallel()
	dir := lists(t)
	for name, want := range map[string][]kmodindex.Entry{
		"modules.builtin.bin": {{Key: "aes_generic"}, {Key: "algapi"}, {Key: "tpm"}, {Key: "tpm_crb"}},
		"modules.builtin.alias.bin": {{Key: "acpi*:MSFT0101:*", Value: "tpm_crb"}, {Key: "crypto_aes", Value: "aes_generic"},
			{Key: "crypto_aes_generic", Value: "aes_generic"}},
		"modules.dep.bin": nil,
	} {
		got, err := kmodindex.Read(read(t, filepath.Join(dir, name)))
		slices.SortFunc(got, func(a, b kmodindex.Entry) int { return strings.Compare(a.Key, b.Key) })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestDamagedLists(t *testing.T) {
	t.Parallel()
	list := read(t, filepath.Join(lists(t), "modules.builtin.alias.bin"))
	for n := range list {
		if _, err := kmodindex.Read(list[:n]); !errors.Is(err, kmodindex.ErrForm) {
			t.Errorf("%d bytes of %d: %v", n, len(list), err)
		}
	}
	loop := slices.Clone(list)
	root := int(list[9])<<16 | int(list[10])<<8 | int(list[11])
	copy(loop[root+2:], list[8:12]) // its first child is itself
	if got, err := kmodindex.Read(loop); !errors.Is(err, kmodindex.ErrForm) {
		t.Errorf("a loop: %d entries, %v", len(got), err)
	}
}

func FuzzRead(f *testing.F) {
	dir := lists(f)
	for _, name := range []string{"modules.builtin.bin", "modules.builtin.alias.bin"} {
		f.Add(read(f, filepath.Join(dir, name)))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		if entries, err := kmodindex.Read(list); err != nil && entries != nil {
			t.Errorf("%d entries with %v", len(entries), err)
		}
	})
}
