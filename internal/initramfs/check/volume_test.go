package check

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestNewestRootIsMarked: the partition that discovery takes, and no other one.
func TestNewestRootIsMarked(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sfdisk")
	dir := t.TempDir()
	disk := filepath.Join(dir, "dev/vda")
	folder := filepath.Join(dir, "devices/vda")
	for path, text := range map[string]string{
		disk: "", filepath.Join(folder, "size"): "65536\n", filepath.Join(folder, "queue/logical_block_size"): "512\n",
		filepath.Join(folder, "vda1/partition"): "1\n", filepath.Join(folder, "vda2/partition"): "2\n", filepath.Join(folder, "vda3/partition"): "3\n",
		filepath.Join(dir, "dev/vda1"): "", filepath.Join(dir, "dev/vda2"): "", filepath.Join(dir, "dev/vda3"): "",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	class := filepath.Join(dir, "class")
	if err := os.Mkdir(class, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"vda": "vda", "vda1": "vda/vda1", "vda2": "vda/vda2", "vda3": "vda/vda3"} {
		if err := os.Symlink("../devices/"+target, filepath.Join(class, name)); err != nil {
			t.Fatal(err)
		}
	}
	types := map[string]string{"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"}
	if types[runtime.GOARCH] == "" {
		testenv.NotApplicable(t, "the type for this architecture is not in this test")
	}
	testenv.Run(t, "truncate", "-s", "32M", disk)
	table := strings.ReplaceAll("label: gpt\nsize=4M, type=T, name=os_9\nsize=4M, type=T, name=os_10\nsize=4M, type=linux, name=os_11\n", "T", types[runtime.GOARCH])
	testenv.Run(t, "sh", "-c", `printf %s "$1" | sfdisk -q "$0"`, disk, table)
	for name, want := range map[string]bool{"vda1": false, "vda2": true, "vda3": false, "vda": false, "none": false} {
		if got := marksRoot(class, filepath.Join(dir, "dev"), filepath.Join(dir, "dev", name)); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDriverOfTheTPM: the module of this machine's chip, where it is one.
func TestDriverOfTheTPM(t *testing.T) {
	t.Parallel()
	for name, links := range map[string]map[string]string{
		"":         {},
		"tpm_crb":  {"class/tpm/tpm0": "../../devices/MSFT0101/tpm/tpm0", "devices/MSFT0101/tpm/tpm0/device": "../../../MSFT0101", "devices/MSFT0101/driver": "../../bus/acpi/drivers/tpm_crb", "bus/acpi/drivers/tpm_crb/module": "../../../../module/tpm_crb"},
		"built in": {"class/tpm/tpm0": "../../devices/MSFT0101/tpm/tpm0", "devices/MSFT0101/tpm/tpm0/device": "../../../MSFT0101", "devices/MSFT0101/driver": "../../bus/acpi/drivers/tpm_crb"},
	} {
		sys := t.TempDir()
		for _, dir := range []string{"module/tpm_crb", "devices/MSFT0101/tpm/tpm0", "bus/acpi/drivers/tpm_crb", "class/tpm"} {
			if err := os.MkdirAll(filepath.Join(sys, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for link, target := range links {
			if err := os.Symlink(target, filepath.Join(sys, link)); err != nil {
				t.Fatal(err)
			}
		}
		want := name
		if name == "built in" {
			want = ""
		}
		if got := tpmDriver(sys); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
