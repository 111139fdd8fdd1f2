package fidotest

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal plugs the key into a pseudo-terminal and returns the path of its other
// end, to be used as --fido2-device=PATH and with libfido2's tools. That works
// because libfido2 asks of a path only that it is a character device, and takes
// reports of 64 bytes when the device has no HID descriptor. It cannot be found by
// listing devices. The terminal goes away when ctx ends or the key is unplugged;
// plugging it in again takes another call.
func (k *Key) Terminal(ctx context.Context) (path string, err error) {
	master, slave, err := openTerminal()
	if err != nil {
		return "", err
	}
	p := &port{key: k, send: func(report []byte) error { _, err := master.Write(report); return err }}
	ctx, cancel := context.WithCancel(ctx)
	gone := k.gone()
	go func() {
		select {
		case <-ctx.Done():
		case <-gone:
		}
		cancel()
		_, _ = slave.Close(), master.Close()
	}()
	go func() {
		defer cancel()
		report := make([]byte, 1+reportSize) // the first byte is the report number, 0
		for {
			if _, err := io.ReadFull(master, report); err != nil {
				return
			}
			p.receive(ctx, report[1:])
		}
	}()
	return slave.Name(), nil
}

// openTerminal returns both ends of a raw pseudo-terminal. The slave stays open
// here so that reading the master does not end when a program closes its own.
func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var number int
	var setup error
	if err := raw.Control(func(fd uintptr) { number, setup = setupTerminal(int(fd)) }); err != nil {
		return nil, nil, err
	}
	if setup != nil {
		return nil, nil, fmt.Errorf("setting up a pseudo-terminal: %w", setup)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func setupTerminal(fd int) (number int, err error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return 0, err
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return 0, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	// Reads and polls of the slave wait for a whole report.
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = reportSize, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return 0, err
	}
	return unix.IoctlGetInt(fd, unix.TIOCGPTN)
}
