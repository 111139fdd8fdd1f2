package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInstalledSystemdIsFoundByItsLibrary(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"usr/lib/systemd/libsystemd-shared-254.so":                               254,
		"usr/lib64/systemd/libsystemd-shared-255.4-1.fc40.so":                    255,
		"usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.13-1~deb13u1.so": 257,
		"usr/lib/arm-linux-gnueabihf/systemd/libsystemd-shared-252.so":           252,
		"lib/systemd/libsystemd-shared-249.so":                                   249,
		"lib/systemd/libsystemd-shared-245.so":                                   oldestSystemd,
		"usr/lib/systemd/libsystemd-shared-300.so":                               newestSystemd,
		"usr/lib/systemd/libsystemd-core-250.so":                                 newestSystemd,
		"usr/lib/systemd/libsystemd-shared-250.a":                                newestSystemd,
		"usr/lib/systemd/libsystemd-shared-.so":                                  newestSystemd,
		"usr/lib/systemd/libsystemd-shared-99999999999999999999.so":              newestSystemd,
	} {
		root := t.TempDir()
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := installedSystemd(root); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if got := installedSystemd(t.TempDir()); got != newestSystemd {
		t.Errorf("without systemd: %d", got)
	}
}
