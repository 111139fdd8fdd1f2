package e2e

import (
	"encoding/json"
	"syscall"
	"testing"
	"time"
)

// unit is cryptsetup-unit in a guest.
type unit struct {
	*VM
	path string
}

func newUnit(t testing.TB, vm *VM) *unit {
	t.Helper()
	return &unit{vm, vm.Program(t, "./cryptsetup-unit")}
}

// start runs the command without waiting for it.
func (u *unit) start(t *testing.T, args ...string) *Process {
	t.Helper()
	return u.Start(t, Command{Args: append([]string{u.path}, args...)})
}

// onTerminal runs the command on a terminal, where it shows what it waits for.
func (u *unit) onTerminal(t *testing.T, args ...string) *Process {
	t.Helper()
	return u.Start(t, Command{Args: append([]string{u.path}, args...), Terminal: true})
}

// slow is more than enough for anything in an emulated machine that is busy.
const slow = 40 * time.Second

// attach runs attach with the given arguments, which has to succeed, and has the
// volume detached at the end.
func (u *unit) attach(t *testing.T, args ...string) Result {
	t.Helper()
	r := u.start(t, append([]string{"attach"}, args...)...).Wait(t)
	if r.Status != 0 {
		t.Fatalf("attach %q: exit status %d\n%s%s", args, r.Status, r.Stdout, r.Stderr)
	}
	t.Cleanup(func() { u.detach(t, args[0]) })
	t.Logf("attach took %v, CPU %v", r.Ended-r.Started, r.CPU())
	return r
}

// detach takes a volume away and looks for what is left.
func (u *unit) detach(t *testing.T, name string) {
	t.Helper()
	if r := u.Try(t, u.path, "detach", name); r.Status != 0 {
		t.Errorf("detach: exit status %d\n%s", r.Status, r.Stderr)
	}
	if left := u.Shell(t, "ls /dev/mapper; dmsetup ls").Stdout; left != "control\nNo devices found\n" {
		t.Errorf("left after detaching: %q", left)
	}
}

// contents mounts a mapping and reads the file in it.
func (u *unit) contents(t *testing.T, name string) string {
	t.Helper()
	return u.Shell(t, "mount -t ext4 -o ro '/dev/mapper/"+name+"' /mnt; cat /mnt/file; umount /mnt").Stdout
}

// agent answers questions in the guest. The result's output has them.
func (u *unit) agent(t *testing.T, replies ...string) *Process {
	t.Helper()
	p := u.Start(t, Command{Args: append([]string{u.Program(t, "./e2e/answer")}, replies...)})
	t.Cleanup(func() {
		if p.Running() {
			p.Signal(t, syscall.SIGKILL)
		}
	})
	return p
}

// attempt is the part of /run/luksmith/NAME.json that the tests look at.
type attempt struct {
	Result, Error string
	Exit          int
	Opened        struct {
		By             string
		Keyslot, Token *int
	}
	Identity string
	Failures []struct {
		Way, Error string
		Exit       int
	}
}

func (u *unit) report(t *testing.T, name string) (a attempt) {
	t.Helper()
	if err := json.Unmarshal([]byte(u.Shell(t, "cat '/run/luksmith/"+name+".json'").Stdout), &a); err != nil {
		t.Fatal(err)
	}
	return a
}
