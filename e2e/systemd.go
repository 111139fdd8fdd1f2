package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// PrepareRoot mounts Config.Tree in the guest, with a layer above it that takes
// changes, as /newroot.
func (vm *VM) PrepareRoot(t testing.TB) {
	t.Helper()
	vm.Shell(t, `modprobe -a overlay
		mkdir -p /lower /upper /newroot
		mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose tree /lower
		mount -t tmpfs tmpfs /upper; mkdir /upper/data /upper/work
		mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work none /newroot
		mkdir -p /newroot/dev /newroot/proc /newroot/sys /newroot/run /newroot/lib/modules
		mount --bind /lib/modules /newroot/lib/modules`)
}

// SwitchRoot makes PID 1 run the init of /newroot. Commands go on to run in the
// old root, which shares /dev, /proc, /sys and /run; see InRoot.
func (vm *VM) SwitchRoot(t testing.TB) {
	t.Helper()
	vm.Shell(t, `old=$(readlink /proc/1/exe); kill -USR1 1; i=0
		while [ "$(readlink /proc/1/exe)" = "$old" ]; do i=$((i+1)); [ $i -lt 400 ]; sleep 0.05; done`)
}

// InRoot runs a program in the root of PID 1, whatever its exit status.
func (vm *VM) InRoot(t testing.TB, args ...string) Result {
	t.Helper()
	return vm.Try(t, append([]string{"chroot", "/proc/1/root"}, args...)...)
}

// AwaitUnit waits until a unit of the guest's systemd is active, or all has been
// started that is going to be, and returns the unit's state.
func (vm *VM) AwaitUnit(t testing.TB, unit string, timeout time.Duration) string {
	t.Helper()
	r := vm.Start(t, Command{Args: []string{"chroot", "/proc/1/root", "timeout", fmt.Sprint(int(timeout.Seconds())), "sh", "-c", `while :; do
		all=$(systemctl is-system-running); unit=$(systemctl show -p ActiveState --value '` + unit + `')
		case "$all $unit" in *' active' | running\ ?* | degraded\ ?* | maintenance\ ?*) echo "$unit"; exit;; esac
		sleep 0.3; done 2>/dev/null`}}).waitFor(t, timeout+runTimeout)
	return strings.TrimSpace(r.Stdout)
}
