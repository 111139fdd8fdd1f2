package forecast

import (
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/host"
)

// TestFilesBesideAnImage: an image on the extended boot partition has those of its own
// partition, and only those that the stub looks at.
func TestFilesBesideAnImage(t *testing.T) {
	t.Parallel()
	const kernel = boottest.Kernel
	addon := func(release string) []byte {
		return petest.Build(petest.Section{Name: ".text", Data: []byte("x")}, petest.Section{Name: ".sdmagic", Data: []byte("#### LoaderInfo: systemd-addon 257 ####")},
			petest.Section{Name: ".cmdline", Data: []byte("lab=1")}, petest.Section{Name: ".uname", Data: []byte(release)})
	}
	image := petest.Extend(petest.Image("257", petest.Kernel(kernel), []byte("initrd"), "quiet"), petest.Section{Name: ".uname", Data: []byte(kernel)})
	const own = "extended/EFI/Linux/next.efi.extra.d/"
	for name, c := range map[string]struct {
		file           string
		content        []byte
		moved, unknown []int
	}{
		"nothing":                     {"extended/nothing", nil, nil, nil},
		"an addon":                    {own + "a.addon.efi", addon(kernel), []int{4, 9, 12}, nil},
		"an addon on its partition":   {"extended/loader/addons/a.addon.efi", addon(kernel), []int{4, 9, 12}, nil},
		"an addon on the other one":   {boottest.ESP + "/EFI/Linux/next.efi.extra.d/a.addon.efi", addon(kernel), nil, nil},
		"an addon for another kernel": {own + "a.addon.efi", addon("6.1.0"), []int{4}, []int{9, 12}},
		"a credential":                {own + "a.cred", []byte("x"), []int{9, 12}, nil},
		"one whose name has a dot":    {own + ".a.cred", []byte("x"), nil, nil},
		"one whose name is not ASCII": {own + "ä.cred", []byte("x"), nil, []int{4, 9, 11, 12, 13}},
	} {
		root := t.TempDir()
		for file, content := range map[string][]byte{boottest.ESP + "/EFI/BOOT/BOOTX64.EFI": petest.Loader("257"), boottest.ESP + "/EFI/Linux/now.efi": image,
			"extended/EFI/Linux/next.efi": image, c.file: c.content} {
			if err := boottest.Write(filepath.Join(root, file), content); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := boottest.Start(boottest.Load(t, boots, "uki")["base"], root, "/EFI/Linux/now.efi"); err != nil {
			t.Fatal(err)
		}
		f, err := Read(Request{Host: host.Options{Root: root, Boot: filepath.Join(root, "extended")}})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(f.Next, func(n Next) bool { return n.Entry.ID == "next" })
		var moved, unknown []int
		for _, pcr := range chain.Predictable() {
			switch v := f.Next[i].Of(pcr); {
			case v.Grade == bootchain.Unknown:
				unknown = append(unknown, pcr)
			case v.Moved:
				moved = append(moved, pcr)
			}
		}
		if !slices.Equal(moved, c.moved) || !slices.Equal(unknown, c.unknown) {
			t.Errorf("%s: moved %v, unknown %v; want %v and %v", name, moved, unknown, c.moved, c.unknown)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
