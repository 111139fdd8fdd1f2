package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// systemDir is where packages put the helpers.
const systemDir = "/usr/lib/luksmith"

// Find looks for a helper beside the running executable, in ../lib/luksmith from
// it and in /usr/lib/luksmith. PATH and environment are not consulted, and a file
// that [Trusted] refuses is not taken: a PIN goes to what is found. If somebody
// else could have put the running executable there, only /usr/lib/luksmith counts.
//
// The result is the path without symbolic links. The error, ErrNotInstalled, names
// the folders that were searched and why a file in them was not taken.
func Find(name string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		exe = ""
	}
	return find(name, exe, systemDir)
}

func find(name, exe, system string) (string, error) {
	dirs, refused := searched(exe)
	dirs = append(dirs, system)
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			continue
		}
		real, err := Trusted(path)
		if err == nil {
			return real, nil
		}
		refused = append(refused, fmt.Sprintf("%s is not run: %v", path, err))
	}
	reasons := append([]string{fmt.Sprintf("no %s in %s", name, strings.Join(dirs, ", "))}, refused...)
	return "", fmt.Errorf("%w: %s", ErrNotInstalled, strings.Join(reasons, "; "))
}

// searched are the folders that hang on where the executable is; refused says why
// there are none.
func searched(exe string) (dirs, refused []string) {
	if exe == "" {
		return nil, nil
	}
	dir := filepath.Dir(exe)
	if err := trustedProgram(exe); err != nil {
		return nil, []string{fmt.Sprintf("nothing near %s is run: %v", exe, err)}
	}
	return []string{dir, filepath.Join(dir, "..", "lib", "luksmith")}, nil
}

// trustedProgram is Trusted for a program that runs already, and so may have been
// deleted since: in an initrd it is.
func trustedProgram(exe string) error {
	err := checkOwner(exe, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return trustedFolders(filepath.Dir(exe))
}

// Trusted refuses a file that somebody else than the administrator could have put
// where it is, because it is to be run with our rights: the file and every folder
// on the way must belong to root or to us, and be writable by nobody else. Folders
// with the sticky bit, such as /tmp, may be: nobody can replace our files in them.
// The result is the path without symbolic links, which nobody else can change.
func Trusted(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", err
	}
	if err := checkOwner(real, true); err != nil {
		return "", err
	}
	return real, trustedFolders(filepath.Dir(real))
}

// trustedFolders checks a folder and all above.
func trustedFolders(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		if err := checkOwner(dir, false); err != nil {
			return err
		}
		if dir == "/" {
			return nil
		}
	}
}

func checkOwner(path string, regular bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch mode := info.Mode(); {
	case regular && !mode.IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case owner != 0 && int(owner) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d", path, owner)
	case mode&0o022 != 0 && (regular || mode&fs.ModeSticky == 0):
		return fmt.Errorf("%s is writable by others", path)
	}
	return nil
}
