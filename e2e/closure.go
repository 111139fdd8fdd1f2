package e2e

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// tree is a root folder that programs are taken from: "/" or a Debian tree.
type tree string

// libraryFolders is where the dynamic linker of Debian looks, without a cache.
func libraryFolders() []string {
	return []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/lib", "/usr/lib"}
}

// closure returns the path of every file, as seen in the tree, that the given
// programs and libraries need to start, they themselves included. What they open
// later (dlopen) has to be named.
func (r tree) closure(files ...string) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	for len(files) > 0 {
		f := files[0]
		files = files[1:]
		if seen[f] {
			continue
		}
		seen[f] = true
		all = append(all, f)
		needed, err := r.needed(f)
		if err != nil {
			return nil, fmt.Errorf("libraries of %s: %w", f, err)
		}
		files = append(files, needed...)
	}
	return all, nil
}

// needed returns interpreter and libraries that one file names itself.
func (r tree) needed(file string) ([]string, error) {
	e, err := elf.Open(r.path(file))
	if err != nil {
		var notELF *elf.FormatError
		if errors.As(err, &notELF) || errors.Is(err, io.EOF) {
			return nil, nil // a script or data
		}
		return nil, err
	}
	defer e.Close()
	var list []string
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, err
			}
			list = append(list, strings.TrimRight(string(b), "\x00"))
		}
	}
	libs, err := e.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	runpath, _ := e.DynString(elf.DT_RUNPATH)
	for _, lib := range libs {
		p, err := r.find(lib, strings.Split(strings.Join(runpath, ":"), ":"))
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (r tree) find(lib string, runpath []string) (string, error) {
	for _, dir := range append(runpath, libraryFolders()...) {
		p := path.Join(dir, lib)
		if _, err := os.Stat(r.path(p)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", lib, r)
}

// path is where a file of the tree lies on the host.
func (r tree) path(inside string) string { return filepath.Join(string(r), inside) }

// merged is the path in a tree in which /bin, /sbin, /lib and /lib64 are links
// into /usr, as in every initrd here.
func merged(p string) string {
	p = strings.TrimPrefix(path.Clean(p), "/")
	for _, dir := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(p, dir) {
			return "usr/" + p
		}
	}
	return p
}
