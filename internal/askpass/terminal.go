package askpass

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errTerminalGone ends the prompts of a terminal that was hung up.
var errTerminalGone = errors.New("the terminal is gone")

// terminal is a file description of our own for a tty: what we set on it, such
// as not blocking, concerns nobody else.
type terminal struct {
	fd    int
	wake  int           // eventfd that interrupts poll
	saved *unix.Termios // what to restore; nil while the terminal is not ours
	// signals says that ^C and ^Z come as signals: the terminal is the controlling
	// one. Elsewhere, as on an initrd's /dev/console, they come as bytes.
	signals bool
}

// openTerminal opens a tty by its path.
func openTerminal(path string) (*terminal, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s is not a terminal: %w", path, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	_, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return &terminal{fd: fd, wake: wake, signals: err == nil}, nil
}

func (t *terminal) close() {
	t.restore()
	_ = unix.Close(t.fd)
	_ = unix.Close(t.wake)
}

// take stops echo and line editing and drops what was typed before, which was
// meant for something else. It returns the settings found.
func (t *terminal) take() (*unix.Termios, error) {
	found, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("reading the terminal's settings: %w", err)
	}
	t.saved = found
	t.dropInput()
	if err := t.apply(); err != nil {
		t.saved = nil
		return nil, err
	}
	return found, nil
}

// apply sets the modes of a prompt, after take or when the process continues.
func (t *terminal) apply() error {
	own := *t.saved
	own.Iflag &^= unix.IXON | unix.IXOFF | unix.INLCR | unix.IGNCR // ^S must not freeze the prompt
	own.Iflag |= unix.ICRNL
	own.Lflag &^= unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHONL | unix.IEXTEN
	if !t.signals {
		own.Lflag &^= unix.ISIG
	}
	own.Cc[unix.VMIN], own.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(t.fd, unix.TCSETS, &own); err != nil {
		return fmt.Errorf("setting up the terminal: %w", err)
	}
	return nil
}

// restore gives the terminal back as it was found and drops what was typed and
// not read, so that nothing of a passphrase reaches the next reader. It may be
// called at any time.
func (t *terminal) restore() {
	if t.saved == nil {
		return
	}
	t.dropInput()
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, t.saved)
	t.saved = nil
}

func (t *terminal) dropInput() { _ = unix.IoctlSetInt(t.fd, unix.TCFLSH, unix.TCIFLUSH) }

// columns is the width of the terminal; serial consoles do not know theirs.
func (t *terminal) columns() int {
	size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil || size.Col < 20 {
		return 80
	}
	return int(size.Col)
}

// write sends all of p, unless the terminal is gone or takes nothing for a while:
// a stopped terminal must not hold up an unlock.
func (t *terminal) write(p []byte) {
	for len(p) > 0 {
		n, err := unix.Write(t.fd, p)
		switch {
		case n > 0:
			p = p[n:]
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			room := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(room, 200)
			if room[0].Revents != unix.POLLOUT {
				return
			}
		default:
			return
		}
	}
}

// interrupt makes wait return.
func (t *terminal) interrupt() {
	_, _ = unix.Write(t.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// wait sleeps until a key is pressed (input), the terminal is gone, or interrupt
// is called.
func (t *terminal) wait() (input, gone bool) {
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(t.wake), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, -1); err != nil {
		return false, err != unix.EINTR
	}
	if fds[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(t.wake, count[:])
	}
	input = fds[0].Revents&unix.POLLIN != 0
	return input, !input && fds[0].Revents != 0
}

// read gets what was typed, at most len(p) bytes. It does not block.
func (t *terminal) read(p []byte) (int, error) {
	n, err := unix.Read(t.fd, p)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errTerminalGone, err)
	case n == 0:
		return 0, errTerminalGone
	}
	return n, nil
}
