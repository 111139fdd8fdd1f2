// Package socket connects stream sockets. It does for AF_UNIX and for numeric TCP
// addresses what package net would, whose resolver and interfaces are a twentieth
// of a program that has to fit in an initrd.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Unix is the address of an AF_UNIX socket: a path, or "@" and an abstract name.
func Unix(path string) unix.Sockaddr { return &unix.SockaddrUnix{Name: path} }

// TCP is the address of a port on a host. Names are not resolved: host is a
// numeric address or "localhost", which is 127.0.0.1.
func TCP(host string, port uint16) (unix.Sockaddr, error) {
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil || ip.Zone() != "":
		return nil, fmt.Errorf("%.60q is neither a numeric address nor localhost; host names are not resolved", host)
	case ip.Is4():
		return &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}, nil
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}, nil
}

// Dial connects to an address, from the address from if that is not nil. A server
// whose queue is full is waited for until ctx ends; then the cause of ctx is the
// error. The result has deadlines, as a net.Conn has.
func Dial(ctx context.Context, to, from unix.Sockaddr) (*os.File, error) {
	fd, err := unix.Socket(family(to), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if from != nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, from))
	}
	if err == nil {
		err = connect(ctx, fd, to)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket") // not blocking, so it is polled
	if err != nil {
		if err := finish(ctx, f); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	return f, nil
}

func family(to unix.Sockaddr) int {
	switch to.(type) {
	case *unix.SockaddrInet4:
		return unix.AF_INET
	case *unix.SockaddrInet6:
		return unix.AF_INET6
	}
	return unix.AF_UNIX
}

// connect goes on while the server's queue is full, which it is until somebody
// accepts. There is no event for that.
func connect(ctx context.Context, fd int, to unix.Sockaddr) error {
	pause := 10 * time.Millisecond
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := unix.Connect(fd, to)
		if err != unix.EAGAIN {
			return os.NewSyscallError("connect", err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-ctx.Done():
		}
	}
}

// finish waits until a connection that is in progress stands.
func finish(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failure error
	err = raw.Write(func(fd uintptr) (done bool) {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failure = err
		case code != 0:
			failure = unix.Errno(code)
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, os.NewSyscallError("connect", failure))
}
