package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// mkinitcpioStubs stand for the functions of mkinitcpio that hooks call: they print their
// words.
const mkinitcpioStubs = `
for f in add_binary add_file add_module add_checked_modules add_symlink add_runscript warning; do eval "$f() { echo $f \"\$@\"; }"; done
map() { local f=$1 x; shift; for x in "$@"; do "$f" "$x"; done; }
BUILDROOT=$1
. "$2"
build
`

// layout is a system with the package below a folder, where scripts that are written for
// / run.
type layout struct{ root string }

func newLayout(t *testing.T) *layout {
	t.Helper()
	l := &layout{t.TempDir()}
	l.write(t, "etc/luksmith/boot", "all\n", 0o644)
	l.write(t, "usr/lib/luksmith/first", "#!/bin/sh\n", 0o755)
	l.write(t, "usr/lib/luksmith/luksmith-fido2", "#!/bin/sh\n", 0o755)
	l.write(t, "usr/lib/luksmith/cryptsetup-unit", `#!/bin/sh
case "$*" in
*needs*crypttab=/dev/null) printf 'module crypto-xts\nmodules drivers/char/tpm\nhelper luksmith-fido2\nhelper luksmith-pkcs11\n' ;;
*needs*) printf 'module crypto-aes\nfile /etc/a.key\nmissing no header\n' ;;
*) printf '%s\n' "unit $*" ;;
esac
`, 0o755)
	return l
}

// write writes a file of the layout.
func (l *layout) write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	full := filepath.Join(l.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, full, []byte(text), mode)
	return full
}

// script copies a script of the packages into the layout.
func (l *layout) script(t *testing.T, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("initrd", from))
	if err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("/usr/lib/", l.root+"/usr/lib/", "/etc/luksmith", l.root+"/etc/luksmith", "/etc/crypttab", l.root+"/etc/crypttab", "/run/luksmith", l.root+"/run")
	return l.write(t, to, replace.Replace(string(text)), 0o755)
}

// run runs a shell script and returns its output without the layout's folder.
func (l *layout) run(t *testing.T, shell, text string, args ...string) string {
	t.Helper()
	testenv.Need(t, shell)
	out, err := exec.Command(shell, append([]string{"-c", text, shell}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.ReplaceAll(string(out), l.root, "")
}

// TestMkinitcpioImages: what its install hooks put into an image.
func TestMkinitcpioImages(t *testing.T) {
	t.Parallel()
	const always = "add_binary /usr/lib/luksmith/cryptsetup-unit\nadd_file /usr/lib/luksmith/first /usr/lib/luksmith/first 755\nadd_file /etc/luksmith/boot\nadd_module dm-crypt\nadd_module efivarfs?\n"
	const header = "add_module crypto-xts?\nadd_checked_modules /char/tpm/\nadd_binary /usr/lib/luksmith/luksmith-fido2\n"
	const systemd = "add_symlink /usr/lib/luksmith/luksmith-generator cryptsetup-unit\nadd_file /usr/lib/systemd/system-generators/luksmith-generator /usr/lib/systemd/system-generators/luksmith-generator 755\n"
	for name, tt := range map[string]struct {
		hook string
		base bool // the hook that brings busybox is in HOOKS
		gone string
		want string
	}{
		"busybox":               {hook: "install-luksmith", base: true, want: always + header + "add_runscript\n"},
		"systemd":               {hook: "install-sd-luksmith", base: true, want: always + "add_module crypto-aes?\nadd_file /etc/a.key\nwarning luksmith: %s no header\n" + systemd},
		"systemd without shell": {hook: "install-sd-luksmith", gone: "etc/crypttab.initramfs", want: always + header + "add_binary sh\nadd_binary sleep\n" + systemd},
		"not switched on":       {hook: "install-luksmith", gone: "etc/luksmith/boot"},
		"no program":            {hook: "install-sd-luksmith", gone: "usr/lib/luksmith/cryptsetup-unit"},
	} {
		l := newLayout(t)
		l.write(t, "etc/crypttab.initramfs", "root /dev/sda2 none luks\n", 0o600)
		l.script(t, "mkinitcpio/install-luksmith", "usr/lib/initcpio/install/luksmith")
		hook := l.script(t, "mkinitcpio/"+tt.hook, "usr/lib/initcpio/install/hook")
		if tt.base {
			l.write(t, "image/usr/bin/sh", "", 0o755)
			l.write(t, "image/usr/bin/sleep", "", 0o755)
		}
		if tt.gone != "" {
			_ = os.Remove(filepath.Join(l.root, tt.gone))
		}
		if got := l.run(t, "bash", mkinitcpioStubs, filepath.Join(l.root, "image"), hook); got != tt.want {
			t.Errorf("%s:\n%swant\n%s", name, got, tt.want)
		}
	}
}

// TestMkinitcpioHooks: where the words of luksmith stand among those of others.
func TestMkinitcpioHooks(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	conf := l.script(t, "mkinitcpio/luksmith.conf", "etc/mkinitcpio.conf.d/luksmith.conf")
	for hooks, want := range map[string]string{
		"base udev encrypt filesystems":               "base udev luksmith encrypt filesystems",
		"systemd sd-encrypt filesystems":              "systemd sd-encrypt sd-luksmith filesystems",
		"base luksmith udev encrypt lvm2 filesystems": "base udev luksmith encrypt lvm2 filesystems",
		"base udev filesystems":                       "base udev filesystems",
	} {
		for range 2 { // as when the file is read twice
			got := l.run(t, "bash", `HOOKS=($1); . "$2"; . "$2"; echo "${HOOKS[@]}"`, hooks, conf)
			if strings.TrimSpace(got) != want {
				t.Errorf("%s: %s", hooks, got)
			}
		}
	}
}

// TestMkinitcpioRunHook: what runs while the system boots, before the hook encrypt.
func TestMkinitcpioRunHook(t *testing.T) {
	t.Parallel()
	const first = "first 32 cryptsetup-unit attach-all --initrd --only-automatic --limit=15s --crypttab=/run/crypttab\n"
	for name, tt := range map[string]struct{ device, root, want, table string }{
		"cryptdevice":   {"UUID=5afe:root:allow-discards", "/dev/mapper/root", first, "root UUID=5afe none allow-discards\n"},
		"no options":    {"/dev/sda2:root", "/dev/mapper/root", first, "root /dev/sda2 none luks\n"},
		"no name":       {"/dev/sda2", "/dev/sda3", "", ""},
		"discoverable":  {"", "/dev/mapper/root", "unit attach-all --initrd --discover --limit=15s\n", ""},
		"not encrypted": {"", "/dev/sda2", "", ""},
	} {
		l := newLayout(t)
		l.write(t, "usr/lib/luksmith/first", "#!/bin/sh\necho first \"$@\"\n", 0o755)
		hook := l.script(t, "mkinitcpio/hook-luksmith", "hook")
		got := l.run(t, "dash", `modprobe() { :; }; cryptdevice=$1 root=$2; . "$3"; run_hook`, tt.device, tt.root, hook)
		table, _ := os.ReadFile(filepath.Join(l.root, "run/crypttab"))
		if got != tt.want || string(table) != tt.table {
			t.Errorf("%s: %q, crypttab %q", name, got, table)
		}
	}
}

// TestOpenRCService: the volumes of crypttab, by the names that stand there.
func TestOpenRCService(t *testing.T) {
	t.Parallel()
	const stubs = `ebegin() { :; }; eend() { echo "eend $1"; }; ewarn() { echo "warn $1"; }; . "$1"; start; echo "= $?"; stop; echo "= $?"`
	for table, want := range map[string]string{
		"": "= 0\n= 0\n",
		"# a comment\n\nroot /dev/sda2 none luks\na\\040b /dev/sda3\n": "unit attach-all\neend 0\n= 0\nunit detach -- root\nunit detach -- a\\040b\n= 0\n",
	} {
		l := newLayout(t)
		if table != "" {
			l.write(t, "etc/crypttab", table, 0o600)
		}
		if got := l.run(t, "dash", stubs, l.script(t, "openrc/luksmith", "etc/init.d/luksmith")); got != want {
			t.Errorf("%q: %q, want %q", table, got, want)
		}
	}
}
