package check_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"luksmith/internal/initramfs"
	"luksmith/internal/initramfs/check"
	"luksmith/internal/initramfs/image"
	"luksmith/tokens"
)

const uuid = "5afe0000-0000-4000-8000-00000000c0de"

// content is the image of a volume with a FIDO2 key, a TPM and a key file, as
// initramfs-tools makes it. The program with libraries is one of this machine.
func content(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{
		"usr/lib/luksmith/cryptsetup-unit": "\x7fELF…", "usr/lib/luksmith/first": "#!/bin/sh\n", "scripts/local-top/luksmith": "#!/bin/sh\n",
		"usr/bin/sh": "#!", "usr/bin/sleep": "#!", "scripts/functions": "", "conf/initramfs.conf": "", "etc/luksmith/boot": "root # the volume\n",
		"cryptroot/crypttab": "root UUID=" + strings.ToUpper(uuid) + " /cryptroot/keyfiles/root.key luks,initramfs\n", "cryptroot/keyfiles/root.key": "key",
	}
	const modules = "usr/lib/modules/6.12/"
	for _, name := range []string{"drivers/md/dm-mod.ko.xz", "drivers/md/dm-crypt.ko.xz", "arch/x86/crypto/aesni-intel.ko.xz", "drivers/char/tpm/tpm_tis.ko.xz", "drivers/hid/usbhid/usbhid.ko", "drivers/hid/hid-generic.ko.zst"} {
		files[modules+"kernel/"+name] = "module"
	}
	files[modules+"modules.alias"] = "alias crypto-aes aesni_intel\nalias crypto-xts xts\n"
	files[modules+"modules.dep"] = "kernel/drivers/md/dm-crypt.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\n"
	files[modules+"modules.builtin"] = "kernel/crypto/xts.ko\n"
	addProgram(t, files, "usr/lib/luksmith/luksmith-fido2", "/bin/true")
	return files
}

// addProgram adds a program of this machine under another name, with its libraries.
func addProgram(t *testing.T, files map[string]string, name, host string) {
	t.Helper()
	for dst, pattern := range map[string]string{name: host, "usr/lib/x86_64-linux-gnu/libc.so.6": "/lib/*-linux-gnu*/libc.so.6", "usr/lib64/ld-linux-x86-64.so.2": "/lib/*-linux-gnu*/ld-linux-*.so.*"} {
		found, _ := filepath.Glob(pattern)
		if len(found) == 0 {
			t.Skipf("not applicable here: no %s", pattern)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		if dst != name {
			dst = filepath.Join(filepath.Dir(dst), filepath.Base(found[0]))
		}
		files[dst] = string(b)
	}
}

// archive makes a cpio archive with folders that are links, as in a merged /usr.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	add := func(name, text string, mode cpio.FileMode) {
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(text)), Links: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	add("lib", "usr/lib", cpio.TypeSymlink|0o777)
	add("usr/lib/modules/6.12/build", "/usr/src/linux", cpio.TypeSymlink|0o777) // which is not there
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := cpio.FileMode(0o644)
		if strings.HasPrefix(files[name], "#!") || strings.HasPrefix(files[name], "\x7fELF") {
			mode = 0o755
		}
		add(name, files[name], cpio.TypeReg|mode)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pack puts an early archive, which is not compressed, before the main one.
func pack(t *testing.T, files map[string]string, how string) []byte {
	t.Helper()
	early := archive(t, map[string]string{"kernel/x86/microcode/GenuineIntel.bin": "microcode"})
	for len(early)%512 != 0 {
		early = append(early, 0)
	}
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(&b)
	case "gzip":
		w = gzip.NewWriter(&b)
	case "lz4":
		z := lz4.NewWriter(&b)
		w, err = z, z.Apply(lz4.LegacyOption(true))
	default:
		return append(early, archive(t, files)...)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(archive(t, files)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(early, b.Bytes()...)
}

func volume() *check.Volume {
	return &check.Volume{Name: "root", Names: []string{"UUID=" + uuid}, Needs: initramfs.Needs{
		Modules: []string{"dm_crypt", "crypto-aes", "crypto-xts", "usbhid", "hid_generic"}, Folders: []string{"drivers/char/tpm"}, Helpers: []string{"luksmith-fido2"}}}
}

func verdict(t *testing.T, data []byte) []check.Finding {
	t.Helper()
	im, err := image.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return check.Image(im, volume())
}

func TestWholeImagesOfEveryCompression(t *testing.T) {
	t.Parallel()
	files := content(t)
	for _, how := range []string{"plain", "gzip", "zstd", "xz", "lz4"} {
		data := pack(t, files, how)
		if f := verdict(t, data); !check.OK(f) {
			t.Errorf("%s: %+v", how, f)
		}
		// What a boot loader appends takes the place of what is there.
		data = append(append(data, make([]byte, -len(data)&3)...), archive(t, map[string]string{"etc/luksmith/boot": "other\n"})...)
		if f := verdict(t, data); check.OK(f) {
			t.Errorf("%s: what was appended was not read", how)
		}
	}
}

// TestImagesWithOnePartRemoved: exactly that part is missed, and said.
func TestImagesWithOnePartRemoved(t *testing.T) {
	t.Parallel()
	for part, want := range map[string]string{
		"usr/lib/luksmith/cryptsetup-unit": "program", "usr/lib/luksmith/first": "hook", "scripts/local-top/luksmith": "hook",
		"etc/luksmith/boot": "switch", "cryptroot/crypttab": "crypttab", "cryptroot/keyfiles/root.key": "key file",
		"dm-crypt.ko": "module", "aesni-intel.ko": "module", "modules.builtin": "module", "tpm_tis.ko": "module", "usbhid.ko": "module", "hid-generic.ko": "module",
		"usr/bin/sh": "hook", "usr/bin/sleep": "hook", "dm-mod.ko": "module", "modules.dep": "module",
		"luksmith-fido2": "helper", "libc.so": "library", "ld-linux": "library",
	} {
		files := content(t)
		maps.DeleteFunc(files, func(name, _ string) bool { return strings.Contains(name, part) })
		var missing []string
		for _, f := range verdict(t, pack(t, files, "plain")) {
			if !f.OK {
				missing = append(missing, f.Part)
				if !strings.HasSuffix(f.Remedy, "update-initramfs -u -k all") {
					t.Errorf("without %s: remedy %q", part, f.Remedy)
				}
			}
		}
		if !slices.Equal(missing, []string{want}) {
			t.Errorf("without %s: %v", part, missing)
		}
	}
}

// TestDiscoverableRoot: without crypttab the partition table is enough, where the image
// has what looks at it.
func TestDiscoverableRoot(t *testing.T) {
	t.Parallel()
	dracut := func(files map[string]string) {
		maps.DeleteFunc(files, func(name, _ string) bool {
			return strings.HasPrefix(name, "scripts/") || strings.HasPrefix(name, "conf/")
		})
		files["usr/lib/initrd-release"], files["usr/lib/dracut-lib.sh"], files["usr/sbin/cryptroot-ask.stock"] = "", "", "#!/bin/sh\n"
		files["usr/lib/dracut/hooks/initqueue/settled/91-discover.sh"] = "#!/bin/sh\n"
	}
	for name, tt := range map[string]struct {
		change  func(files map[string]string)
		not     bool // marked as root
		missing string
	}{
		"initramfs-tools": {change: func(map[string]string) {}},
		"dracut":          {change: dracut},
		"dracut without the hook": {missing: "hook", change: func(files map[string]string) {
			dracut(files)
			delete(files, "usr/lib/dracut/hooks/initqueue/settled/91-discover.sh")
		}},
		"dracut with systemd": {missing: "crypttab", change: func(files map[string]string) {
			dracut(files)
			for _, name := range []string{"usr/lib/systemd/systemd", "usr/lib/luksmith/luksmith-generator", "usr/lib/systemd/system-generators/luksmith-generator"} {
				files[name] = "#!/bin/sh\n"
			}
		}},
		"not marked":  {missing: "crypttab", not: true, change: func(map[string]string) {}},
		"other lines": {missing: "crypttab", change: func(files map[string]string) { files["cryptroot/crypttab"] = "data UUID=1 none luks\n" }},
		"no efivarfs": {missing: "module", change: func(files map[string]string) { delete(files, "usr/lib/modules/6.12/kernel/fs/efivarfs/efivarfs.ko") }},
	} {
		files := content(t)
		delete(files, "cryptroot/crypttab")
		files["usr/lib/modules/6.12/kernel/fs/efivarfs/efivarfs.ko"] = "module"
		tt.change(files)
		im, err := image.Read(pack(t, files, "plain"))
		if err != nil {
			t.Fatal(err)
		}
		v := volume()
		v.Root, v.EFI = !tt.not, true
		var missing []string
		for _, f := range check.Image(im, v) {
			if !f.OK {
				missing = append(missing, f.Part)
			}
		}
		if got := strings.Join(missing, " "); got != tt.missing {
			t.Errorf("%s: missing %q, want %q", name, got, tt.missing)
		}
	}
}

// TestLibrariesThatHelpersOpen: p11-kit, or the module that crypttab names.
func TestLibrariesThatHelpersOpen(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options, file, missing string
	}{
		"nothing":           {"luks", "", "libp11-kit.so.0, which a helper opens"},
		"p11-kit":           {"luks", "usr/lib/x86_64-linux-gnu/libp11-kit.so.0", ""},
		"a module":          {"luks,pkcs11-module=/usr/lib/opensc-pkcs11.so", "usr/lib/opensc-pkcs11.so", ""},
		"another option":    {"luks,tpm2-pcrlock=/var/lib/x.so,pkcs11-module=", "usr/lib/libp11-kit.so.0", ""},
		"a module, missing": {"pkcs11-module=/usr/lib/opensc-pkcs11.so", "usr/lib/libp11-kit.so.0", "/usr/lib/opensc-pkcs11.so"},
	} {
		files := content(t)
		files["cryptroot/crypttab"] = "root UUID=" + uuid + " none " + tt.options + "\n"
		if tt.file != "" {
			files[tt.file] = "library"
		}
		v := volume()
		v.Needs.Opens = []tokens.Library{{Name: "libp11-kit.so.0", Option: "pkcs11-module"}}
		im, err := image.Read(pack(t, files, "plain"))
		if err != nil {
			t.Fatal(err)
		}
		missing := ""
		for _, f := range check.Image(im, v) {
			if !f.OK {
				missing += f.What
			}
		}
		if missing != tt.missing {
			t.Errorf("%s: missing %q", name, missing)
		}
	}
}

// TestPartsThatAreThereAndUseless: a name alone is not enough.
func TestPartsThatAreThereAndUseless(t *testing.T) {
	t.Parallel()
	for part, text := range map[string]string{
		"usr/lib/modules/6.12/modules.dep": "", "usr/lib/x86_64-linux-gnu/libc.so.6": "",
		"usr/lib/luksmith/cryptsetup-unit": "\x00", "usr/lib/luksmith/luksmith-fido2": "#!/bin/sh\n", "usr/lib/luksmith/first": "not executable",
		"etc/luksmith/boot": "# all\n", "cryptroot/crypttab": "root UUID=00000000-0000-4000-8000-000000000000 none luks\nother /dev/sda1\n",
	} {
		files := content(t)
		files[part] = text
		if part == "cryptroot/crypttab" {
			files[part] = strings.Replace(text, "root ", "data ", 1)
		}
		if f := verdict(t, pack(t, files, "plain")); check.OK(f) {
			t.Errorf("%s with %q is taken", part, text)
		}
	}
}

func TestFilesThatAreNoImages(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{"empty": nil, "zeros": make([]byte, 4096), "text": []byte("#!/bin/sh\n"),
		"cut archive": pack(t, content(t), "plain")[:200000], "cut zstd": pack(t, content(t), "zstd")[:200000], "program": []byte("MZ and nothing else"),
		"cut xz": pack(t, content(t), "xz")[:200000], "cut gzip": pack(t, content(t), "gzip")[:200000]} {
		if _, err := image.Read(data); err == nil || strings.HasPrefix(name, "cut ") != errors.Is(err, image.ErrCut) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("070701"))
	f.Add([]byte("\x02\x21\x4c\x18\x04\x00\x00\x00abcd"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if im, err := image.Read(data); err == nil {
			check.Image(im, volume())
		}
	})
}
