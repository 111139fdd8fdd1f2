package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// console is the end of what the kernel, PID 1 and others wrote on /dev/console.
func (vm *VM) console() string {
	b, _ := os.ReadFile(filepath.Join(vm.dir, "console"))
	return string(b[max(0, len(b)-8<<10):])
}

// AwaitConsole waits for a text on the guest's console.
func (vm *VM) AwaitConsole(t testing.TB, text string, timeout time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(vm.dir, "console"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(text)) {
			return
		}
	}
	t.Fatalf("not on the console within %v: %q", timeout, text)
}

// TypeOnConsole types as a person in front of the machine does.
func (vm *VM) TypeOnConsole(t testing.TB, text string) {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(vm.dir, "tty"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })           // QEMU would drop what the guest has not read yet
	go func() { _, _ = io.Copy(io.Discard, c) }() // nor may the guest wait for a reader
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}
