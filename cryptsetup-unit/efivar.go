package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"luksmith/internal/gpt"
)

// loaderVendor is the vendor of the Boot Loader Interface's variables.
const loaderVendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// maxEFIVariable bounds what is read of one.
const maxEFIVariable = 1 << 10

// efiVariable is the text of a variable that the boot loader left, "" without it. Few
// initrds mount efivarfs; then it is mounted here without a place.
func (a *app) efiVariable(name string) string {
	name += "-" + loaderVendor
	b, err := readHead(filepath.Join(a.root, "/sys/firmware/efi/efivars", name))
	if err != nil {
		b = a.efiVariableUnmounted(name)
	}
	const attributes = 4 // bytes before the value
	if len(b) < attributes {
		return ""
	}
	return gpt.Text(b[attributes:])
}

// efiVariableUnmounted reads a variable where efivarfs is not mounted.
func (a *app) efiVariableUnmounted(name string) []byte {
	if _, err := os.Stat(filepath.Join(a.root, "/sys/firmware/efi")); err != nil {
		return nil
	}
	fd, err := mountDetached("efivarfs", "efivarfs", false)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	b, _ := readHead(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name))
	return b
}

// readHead reads the beginning of a file, which is all of a variable that is right.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxEFIVariable))
}
