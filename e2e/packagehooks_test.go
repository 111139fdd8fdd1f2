package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// overlays begins a script that changes nothing outside of its folder $d: it installs
// into this machine, as it sees it.
const overlays = `set -eu
d=$1 packages=$2 HOME=$1/home
export HOME
mkdir -p "$HOME"
for f in usr etc var boot; do
	mkdir -p "$d/$f/upper" "$d/$f/work"
	mount -t overlay overlay -o "lowerdir=/$f,upperdir=$d/$f/upper,workdir=$d/$f/work" "/$f"
done
follow() {
	mkdir -p /var/lib/luksmith
	echo '{"version":1,"volumes":[{"uuid":"00000000-0000-4000-8000-000000000000","device":"/dev/nothing"}]}' >/var/lib/luksmith/follow.json
}
`

// packageHooks are transactions of package managers. Each line "== WORDS" begins one of
// them.
var packageHooks = map[string]struct {
	needs  []string
	script string
}{
	// The plugin of Debian 12 names a function as libdnf did before.
	"dnf": {[]string{"dnf", "rpmbuild"}, `
mkdir "$d/python"
cat >"$d/python/sitecustomize.py" <<-'EOF'
	import libdnf.conf
	if not hasattr(libdnf.conf, "ConfigParser_substitute"):
	    libdnf.conf.ConfigParser_substitute = libdnf.conf.ConfigParser.substitute
EOF
install() {
	PYTHONPATH=$d/python dnf -y --releasever=1 --disablerepo='*' --nogpgcheck --disableplugin=local --setopt="reposdir=$d/none" "$@" 2>&1
}
make() {
	printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%%description\n%%files\n' "$1" "$2" >"$d/spec"
	rpmbuild -bb --define "_topdir $d/rpmbuild" "$d/spec" >/dev/null 2>&1
}
install install "$packages"/luksmith-0*.rpm
make shim-x64 0
echo "== nothing before follow"; install install "$d"/rpmbuild/RPMS/noarch/shim-x64-0-1.noarch.rpm
follow
make hello 1
echo "== nothing for hello"; install install "$d"/rpmbuild/RPMS/noarch/hello-1-1.noarch.rpm
for name in systemd-boot-unsigned shim-x64 grub2-efi-x64; do
	for version in 1 2; do
		make $name $version
		echo "== hook for $name $version"; install install "$d/rpmbuild/RPMS/noarch/$name-$version-1.noarch.rpm"
	done
done
`},
	"pacman": {[]string{"pacman"}, `
mkdir -p /var/lib/pacman /var/cache/pacman/pkg
make() {
	mkdir -p "$d/$1/$(dirname "$2")"
	echo x >"$d/$1/$2"
	printf 'pkgname = %s\npkgver = 1-1\npkgdesc = x\nurl = x\nbuilddate = 1\npackager = x\nsize = 1\narch = any\n' "$1" >"$d/$1/.PKGINFO"
	tar -C "$d/$1" -czf "$d/$1.pkg.tar.gz" .PKGINFO "${2%%/*}"
}
pacman --noconfirm -U "$packages"/luksmith-0*.pkg.tar.zst
make linux usr/lib/modules/6.1/vmlinuz; make grub usr/lib/grub/x; make loader boot/loader; make hello usr/share/hello
echo "== nothing before follow"; pacman --noconfirm -U "$d/linux.pkg.tar.gz" 2>&1
follow
echo "== nothing for hello"; pacman --noconfirm -U "$d/hello.pkg.tar.gz" 2>&1
for name in linux grub loader; do
	echo "== hook for $name"; pacman --noconfirm -U "$d/$name.pkg.tar.gz" 2>&1
done
echo "== hook for a kernel that goes"; pacman --noconfirm -R linux 2>&1
`},
	"dpkg": {[]string{"dpkg-deb"}, `
make() {
	mkdir -p "$d/$1/DEBIAN" "$d/$1/$(dirname "$2")"
	echo x >"$d/$1/$2"
	printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n' "$1" >"$d/$1/DEBIAN/control"
	dpkg-deb --build "$d/$1" "$d/$1.deb" >/dev/null
}
dpkg -i "$packages"/luksmith_*.deb
make e2e-loader usr/lib/systemd/boot/efi/e2e.efi; make e2e-hello usr/share/e2e-hello
echo "== nothing before follow"; dpkg -i "$d/e2e-loader.deb" 2>&1
follow
echo "== nothing for hello"; dpkg -i "$d/e2e-hello.deb" 2>&1
echo "== hook for a loader"; dpkg -i "$d/e2e-loader.deb" 2>&1
echo "== hook for a loader that goes"; dpkg -P e2e-loader 2>&1
`},
}

// TestPackageManagersCallTheHook installs packages of loaders and kernels with the
// programs of the distributions, beside ours. Debian has no libdnf5 with its actions, and
// no apk.
func TestPackageManagersCallTheHook(t *testing.T) {
	testenv.NeedEndToEnd(t)
	testenv.NeedRoot(t)
	packages, err := filepath.Abs("../build/packages")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unshare", "--mount", "sh", "-c", overlays, "sh", t.TempDir(), packages).CombinedOutput(); err != nil {
		testenv.NotApplicable(t, "no overlays can be mounted: "+string(out))
	}
	for name, m := range packageHooks {
		t.Run(name, func(t *testing.T) {
			testenv.Need(t, append(m.needs, "unshare")...)
			if plugin := "/usr/lib/python3/dist-packages/dnf-plugins/post-transaction-actions.py"; name == "dnf" {
				if _, err := os.Stat(plugin); err != nil {
					testenv.Missing(t, plugin, "sh .ci/install-deps e2e")
				}
			}
			built(t, packages, map[string]string{"dnf": "luksmith-0*.rpm", "pacman": "luksmith-0*.pkg.tar.zst", "dpkg": "luksmith_*.deb"}[name])
			out, err := exec.Command("unshare", "--mount", "sh", "-c", overlays+m.script, "sh", t.TempDir(), packages).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			transactions := strings.Split(string(out), "\n== ")[1:]
			for _, text := range transactions {
				what, said, _ := strings.Cut(text, "\n")
				want := 0
				if strings.HasPrefix(what, "hook") {
					want = 1
				}
				if got := strings.Count(said, "luksmith: the next boot may ask for a passphrase: "); got != want {
					t.Errorf("%s: the hook says %d lines, want %d\n%s", what, got, want, said)
				}
			}
			t.Logf("%d transactions", len(transactions))
		})
	}
}
