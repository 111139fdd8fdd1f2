package pivtest

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// dialInside connects to a TCP port of the network namespace that a process is in.
func dialInside(pid, port int) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread stays in the other namespace and ends here.
		runtime.LockOSThread()
		conn, err := dialOnThread(pid, port)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialOnThread moves the thread into the namespace.
func dialOnThread(pid, port int) (net.Conn, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering the network namespace of %d: %w", pid, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "card")
	defer f.Close()
	if err := bringUpLoopback(fd); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, fmt.Errorf("connecting to the reader: %w", err)
	}
	return net.FileConn(f)
}

// bringUpLoopback sets IFF_UP, as `ip link set lo up` does.
func bringUpLoopback(fd int) error {
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bringing up the loopback interface: %w", err)
	}
	return nil
}

// acknowledge sends what the kernel would hold back for some 40 ms, in the hope of
// sending it along with something else. Every APDU would wait for that.
func acknowledge(conn net.Conn) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
}
