package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers one connection with the address it came from and what it sent.
func serve(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := make([]byte, 4)
		if _, err := io.ReadFull(conn, b); err == nil {
			_, _ = io.WriteString(conn, conn.RemoteAddr().String()+" "+string(b))
		}
	}()
	return l.Addr()
}

func TestDialSpeaksToServersOfPackageNet(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	abstract := "@" + path + "-abstract"
	name := "@" + path + "-client"
	serve(t, "unix", path)
	serve(t, "unix", abstract)
	tcp := func(address string) unix.Sockaddr {
		addr := serve(t, "tcp", address).(*net.TCPAddr)
		host := addr.IP.String()
		if addr.IP.IsLoopback() && addr.IP.To4() != nil {
			host = "localhost"
		}
		to, err := TCP(host, uint16(addr.Port))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	tests := map[string]struct{ to, from unix.Sockaddr }{
		"path":           {Unix(path), Unix(name)},
		"abstract":       {Unix(abstract), nil},
		"TCP, localhost": {tcp("127.0.0.1:0"), nil},
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		_ = l.Close()
		tests["TCP, version 6"] = struct{ to, from unix.Sockaddr }{tcp("[::1]:0"), nil}
	}
	for title, test := range tests {
		f, err := Dial(t.Context(), test.to, test.from)
		if err != nil {
			t.Errorf("%s: %v", title, err)
			continue
		}
		if _, err := io.WriteString(f, "ping"); err != nil {
			t.Errorf("%s: %v", title, err)
		}
		reply, err := io.ReadAll(f)
		if err != nil || !strings.HasSuffix(string(reply), " ping") {
			t.Errorf("%s: %q, %v", title, reply, err)
		}
		if test.from != nil && !strings.HasPrefix(string(reply), name) {
			t.Errorf("%s: the server saw %q, want %q", title, reply, name)
		}
		_ = f.Close()
	}
}

func TestDialFailsWhereNobodyListens(t *testing.T) {
	t.Parallel()
	if _, err := Dial(t.Context(), Unix(filepath.Join(t.TempDir(), "absent")), nil); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	to, err := TCP("127.0.0.1", uint16(l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), to, nil); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
}

// A server whose queue is full is waited for, as long as the caller likes.
func TestDialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, Unix(path)), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := Dial(t.Context(), Unix(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	why := errors.New("waited enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, why)
	defer cancel()
	if _, err := Dial(ctx, Unix(path), nil); !errors.Is(err, why) {
		t.Error(err)
	}
	go func() {
		if conn, _, err := unix.Accept(fd); err == nil {
			_ = unix.Close(conn)
		}
	}()
	second, err := Dial(t.Context(), Unix(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
}

func TestDialedSocketHasDeadlines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	serve(t, "unix", path)
	f, err := Dial(t.Context(), Unix(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop := time.AfterFunc(10*time.Millisecond, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop.Stop()
	var timeout net.Error
	if _, err := f.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("reading beyond the deadline: %v", err)
	}
}

func TestTCPTakesNumericAddresses(t *testing.T) {
	t.Parallel()
	for host, good := range map[string]bool{
		"localhost": true, "192.0.2.1": true, "::1": true, "2001:db8::7": true,
		"example.org": false, "": false, "::1%eth0": false, "[::1]": false, "1.2.3": false,
	} {
		if _, err := TCP(host, 1); (err == nil) != good {
			t.Errorf("%q: %v", host, err)
		}
	}
}
