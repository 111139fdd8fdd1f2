package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// shareFolder is the folder of the host that the guest sees, read-only, as /host.
func (vm *VM) shareFolder() string { return filepath.Join(vm.dir, "share") }

// Push makes a file or folder of the host visible in the guest and returns its
// path there. A missing folder gives an empty one.
func (vm *VM) Push(t testing.TB, host string) string {
	t.Helper()
	vm.mu.Lock()
	vm.lastID++
	name := fmt.Sprintf("%d-%s", vm.lastID, filepath.Base(host))
	vm.mu.Unlock()
	to := filepath.Join(vm.shareFolder(), name)
	st, err := os.Stat(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.Mkdir(to, 0o755)
	case err != nil:
	case st.IsDir():
		err = os.CopyFS(to, os.DirFS(host))
	default:
		err = copyOrLink(to, host, st.Mode().Perm())
	}
	if err != nil {
		t.Fatal(err)
	}
	return "/host/" + name
}

// Program compiles a package of the module, puts the program into the guest's memory
// and returns its path there, /usr/local/bin/NAME. Unlike a pushed file its pages
// stay, so that an emulated processor translates them once and not at every start.
func (vm *VM) Program(t testing.TB, pkg string) string {
	t.Helper()
	to := "/usr/local/bin/" + filepath.Base(pkg)
	vm.mu.Lock()
	there := vm.programs[to]
	vm.mu.Unlock()
	if there {
		return to
	}
	vm.Shell(t, "mkdir -p /usr/local/bin; cp "+vm.Push(t, build(t, pkg))+" "+to+".new; mv "+to+".new "+to)
	vm.mu.Lock()
	vm.programs[to] = true
	vm.mu.Unlock()
	return to
}

// copyOrLink avoids copying programs of many megabytes.
func copyOrLink(to, from string, perm os.FileMode) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
