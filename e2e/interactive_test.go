package e2e

import (
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/term"
)

var shell = flag.Bool("shell", false, "boot a guest and connect the terminal to a shell in it")

// TestInteractive is the guest by hand of the package's documentation.
func TestInteractive(t *testing.T) {
	if !*shell {
		t.Skip("not asked for: -args -shell")
	}
	c := Config{TPM: os.Getenv("LUKSMITH_E2E_TPM"), Modules: []string{"xhci-pci", "usb-storage"}}
	for path := range strings.SplitSeq(os.Getenv("LUKSMITH_E2E_DISKS"), ",") {
		if path != "" {
			c.Disks = append(c.Disks, Disk{Path: path})
		}
	}
	vm := Boot(t, c)
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	old, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = term.Restore(int(tty.Fd()), old) }()
	p := vm.Start(t, Command{Args: []string{"sh", "-i"}, Terminal: true})
	go func() {
		_, _ = io.Copy(inputFunc(func(b []byte) { p.Write(t, string(b)) }), tty)
	}()
	shown := 0
	p.until(1<<62, func() bool {
		_, _ = io.WriteString(tty, p.out[0].String()[shown:])
		shown = p.out[0].Len()
		return p.exit != nil || p.err != ""
	})
}

type inputFunc func([]byte)

func (f inputFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }
