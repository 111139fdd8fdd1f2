package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/tokens"
)

// TestStorageKeysOfCrypttabCountHereToo: only those of the volume's line, by whatever it
// is named there.
func TestStorageKeysOfCrypttabCountHereToo(t *testing.T) {
	t.Parallel()
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	a, b, c := strings.Repeat("00", 34), strings.Repeat("11", 34), strings.Repeat("22", 34)
	text := "data /dev/disk/by-uuid/" + uuid + " - tpm2-device=auto,luksmith-tpm2-srk=" + a + ":" + b + ",discard\n" +
		"other UUID=11111111-89ab-cdef-0123-456789abcdef - tpm2-device=auto,luksmith-tpm2-srk=" + c + "\n"
	for written, want := range map[string]string{text: "[" + a + " " + b + "]", "data UUID=" + uuid + " - luksmith-tpm2-srk=nonsense\n": "[]"} {
		if err := os.WriteFile(filepath.Join(root, systemCrypttab), []byte(written), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range rememberedKeys(root, tokens.Volume{UUID: uuid}) {
			got = append(got, hex.EncodeToString(name))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%q: %s, want %s", written, got, want)
		}
	}
	if rememberedKeys(t.TempDir(), tokens.Volume{UUID: uuid}) != nil {
		t.Error("without crypttab")
	}
}
