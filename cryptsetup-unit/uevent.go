package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/dmcrypt"
)

// Groups of NETLINK_KOBJECT_UEVENT.
const (
	kernelEvents = 1 // as the kernel sends them
	udevEvents   = 2 // from udevd, when it has made nodes, links and permissions
)

// ueventBuffer is the room for events that have not been read yet. Hundreds come
// at once when a system starts.
const ueventBuffer = 16 << 20

// secondLook is the time after the last event at which the channel of watchUevents
// gets something once more. Nodes in /dev/mapper are made by programs, a little
// after the kernel's event and with none of their own; permissions likewise.
const secondLook = 250 * time.Millisecond

// watchUevents subscribes to the events of kernel subsystems ("block", "hidraw"):
// those of udevd where it runs, otherwise the kernel's own. The channel gets
// something after a device was added or changed or a disk removed, and when events were lost; what
// comes while nobody looks is one event. So a reader looks at all devices anew, the
// first time after watchUevents returned. The channel is closed when ctx ends.
func watchUevents(ctx context.Context, subsystems ...string) (<-chan struct{}, error) {
	group := uint32(kernelEvents)
	if dmcrypt.UdevRuns() {
		group = udevEvents
	}
	s, err := openUevents(group, ueventBuffer)
	if err != nil {
		return nil, fmt.Errorf("listening for devices: %w", err)
	}
	events := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = s.file.Close() })
	go func() {
		defer close(events)
		defer stop()
		defer s.file.Close()
		s.pass(events, subsystems)
	}()
	return events, nil
}

// pass tells of the events of some subsystems until the socket is closed.
func (s *ueventSocket) pass(events chan<- struct{}, subsystems []string) {
	notify := func() {
		select {
		case events <- struct{}{}:
		default:
		}
	}
	// Reading is a goroutine of its own so that nobody sends on events after this
	// function has returned.
	relevant := make(chan struct{})
	go func() {
		defer close(relevant)
		for {
			e, err := s.next()
			if err != nil && !errors.Is(err, errLost) {
				return // closed
			}
			if err != nil || e.matters() && slices.Contains(subsystems, e.subsystem) {
				relevant <- struct{}{}
			}
		}
	}()
	var again <-chan time.Time
	for {
		select {
		case _, open := <-relevant:
			if !open {
				return
			}
			notify()
			again = time.After(secondLook)
		case <-again:
			notify()
			again = nil
		}
	}
}

// errLost says that the kernel dropped events because nobody read them in time.
var errLost = errors.New("events were lost")

// ueventSocket is a subscription.
type ueventSocket struct {
	file  *os.File
	group uint32
}

func openUevents(group uint32, buffer int) (*ueventSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "uevents")
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil { // needs CAP_NET_ADMIN
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group})
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &ueventSocket{file, group}, nil
}

// next returns the next event that comes from the kernel or udevd. errLost can be
// followed by further events; other errors end the subscription.
func (s *ueventSocket) next() (*uevent, error) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		var n, nc int
		var from unix.Sockaddr
		var rerr error
		err := conn.Read(func(fd uintptr) bool {
			n, nc, _, from, rerr = unix.Recvmsg(int(fd), buf, control, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil {
			return nil, err
		}
		switch {
		case errors.Is(rerr, unix.ENOBUFS):
			return nil, errLost
		case errors.Is(rerr, unix.EINTR):
			continue
		case rerr != nil:
			return nil, rerr
		}
		if !s.trusted(from, control[:nc]) {
			continue
		}
		if e := parseUevent(s.group, buf[:n]); e != nil {
			return e, nil
		}
	}
}

// trusted reports whether a message comes from the kernel, or from a process of
// root as udevd is.
func (s *ueventSocket) trusted(from unix.Sockaddr, control []byte) bool {
	if nl, ok := from.(*unix.SockaddrNetlink); s.group == kernelEvents && (!ok || nl.Pid != 0) {
		return false
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return false
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && cred.Uid == 0
}

// uevent is what matters of an event.
type uevent struct {
	action    string // add, change, remove, bind …
	subsystem string // block, hidraw, tpmrm …
}

// matters reports whether after the event there may be more than before. A disk that
// goes matters too: who asks for its passphrase must not go on.
func (e *uevent) matters() bool {
	return e.subsystem == "block" || e.action != "remove" && e.action != "unbind" && e.action != "offline"
}

// udevHeader is the size of the header that libudev puts in front of the
// properties (struct monitor_netlink_header, src/libsystemd/sd-device of systemd).
const udevHeader = 40

// parseUevent reads a message; nil if it is malformed.
func parseUevent(group uint32, b []byte) *uevent {
	if group == udevEvents {
		// "libudev", a magic number in network byte order; then in the machine's:
		// size of the header, offset and length of the properties.
		if len(b) < udevHeader || !bytes.HasPrefix(b, []byte("libudev\x00")) || binary.BigEndian.Uint32(b[8:]) != 0xfeedcafe {
			return nil
		}
		offset, length := binary.NativeEndian.Uint32(b[16:]), binary.NativeEndian.Uint32(b[20:])
		if offset < udevHeader || uint64(offset)+uint64(length) > uint64(len(b)) {
			return nil
		}
		b = b[offset : offset+length]
	}
	var e uevent
	for field := range bytes.SplitSeq(b, []byte{0}) {
		name, value, _ := strings.Cut(string(field), "=")
		switch name {
		case "ACTION":
			e.action = value
		case "SUBSYSTEM":
			e.subsystem = value
		}
	}
	if e.action == "" || e.subsystem == "" {
		return nil
	}
	return &e
}
