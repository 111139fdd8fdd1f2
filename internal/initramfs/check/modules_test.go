package check_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/initramfs/check"
	"luksmith/internal/initramfs/image"
	"luksmith/internal/test/testenv"
)

// lacking is what an image of these files has not.
func lacking(t *testing.T, files map[string]string, v *check.Volume) (what []string) {
	t.Helper()
	im, err := image.Read(pack(t, files, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range check.Image(im, v) {
		if !f.OK {
			what = append(what, f.What)
		}
	}
	return what
}

// TestModulesOfTheSystem: depmod leaves out of an image's list what the image lacks, so
// that of the system says what a module is loaded after.
func TestModulesOfTheSystem(t *testing.T) {
	t.Parallel()
	system := t.TempDir()
	if err := os.Mkdir(filepath.Join(system, "6.12"), 0o755); err != nil {
		t.Fatal(err)
	}
	list := "kernel/drivers/md/dm-crypt.ko: kernel/drivers/md/dm-mod.ko kernel/security/trusted.ko\n"
	if err := os.WriteFile(filepath.Join(system, "6.12/modules.dep"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	files := content(t)
	v := volume()
	v.Modules = system
	if got := lacking(t, files, v); !slices.Equal(got, []string{"dm_crypt, which needs trusted"}) {
		t.Errorf("missing %q", got)
	}
	files["usr/lib/modules/6.12/kernel/security/trusted.ko.zst"] = "module"
	if got := lacking(t, files, v); got != nil {
		t.Errorf("missing %q", got)
	}
}

// TestListsThatModprobeReads: mkinitcpio leaves no others in an image, and what the
// kernel has built in is in no file of it.
func TestListsThatModprobeReads(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "depmod")
	root := t.TempDir()
	const folder = "lib/modules/6.12/"
	if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"modules.order": "", "modules.builtin": "kernel/crypto/xts.ko\nkernel/lib/libaes.ko\nkernel/drivers/char/tpm/tpm.ko\n", "modules.builtin.modinfo": "libaes.alias=crypto-aes\x00",
	} {
		if err := os.WriteFile(filepath.Join(root, folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("depmod", "-b", root, "6.12").CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, out)
	}
	files := content(t)
	for _, name := range []string{"kernel/arch/x86/crypto/aesni-intel.ko.xz", "kernel/drivers/char/tpm/tpm_tis.ko.xz", "modules.alias", "modules.builtin", "modules.dep"} {
		delete(files, "usr/"+folder+name)
	}
	v := volume()
	if got := lacking(t, files, v); len(got) != 4 { // two ciphers, the TPM's folder, modules.dep
		t.Errorf("without lists: missing %q", got)
	}
	for _, name := range []string{"modules.builtin.bin", "modules.builtin.alias.bin", "modules.dep.bin"} {
		list, err := os.ReadFile(filepath.Join(root, folder, name))
		if err != nil {
			t.Fatal(err)
		}
		files["usr/"+folder+name] = string(list)
	}
	if got := lacking(t, files, v); !slices.Equal(got, []string{"drivers/char/tpm"}) {
		t.Errorf("elsewhere: missing %q", got)
	}
	v.Modules = filepath.Join(root, "lib/modules")
	if got := lacking(t, files, v); got != nil {
		t.Errorf("on the system: missing %q", got)
	}
}
