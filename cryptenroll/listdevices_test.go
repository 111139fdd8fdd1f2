package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/tokens/all"
)

// TestListDevices has a machine with two disks: one is a volume, one is something
// else. A third node has no medium, and must not be opened at all.
func TestListDevices(t *testing.T) {
	dir := t.TempDir()
	v := luks2test.New(t)
	image, err := os.ReadFile(v.Path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"sys/class/block/sda/size":   []byte("32768\n"),
		"sys/class/block/sdb!1/size": []byte("2048\n"), // ! stands for a slash in names of the kernel
		"sys/class/block/sr0/size":   []byte("0\n"),
		"sys/class/block/ram0/size":  []byte("8192\n"),
		"dev/sda":                    make([]byte, 1<<20),
		"dev/sdb/1":                  image,
		"dev/sr0":                    image,
		"dev/ram0":                   image,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	printed, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	a := newApp("cryptenroll", all.New)
	a.out = cli.NewStream(printed)
	a.tree = blockTree{sys: filepath.Join(dir, "sys"), dev: filepath.Join(dir, "dev")}
	if err := a.listBlockDevices(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(printed.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 2 || strings.Join(strings.Fields(lines[1]), " ") != filepath.Join(dir, "dev/sdb/1")+" "+v.UUID+" -" {
		t.Errorf("listed are:\n%s", out)
	}
}
