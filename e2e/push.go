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
