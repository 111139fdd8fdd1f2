package askpass

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// fakePlymouth speaks the daemon's side of ply-boot-protocol.h.
type fakePlymouth struct {
	t        *testing.T
	address  string
	password string // what a person will type; "" never answers
	cached   []string
	noSplash bool
	pings    int // how many are answered; -1: all
	mu       sync.Mutex
	requests []string // as they came, bytes and all
}

func startPlymouth(t *testing.T, f *fakePlymouth) *fakePlymouth {
	t.Helper()
	if f.pings == 0 {
		f.pings = -1
	}
	f.t, f.address = t, fmt.Sprintf("@luksmith-test-%x", randomNumber())
	l, err := net.Listen("unix", f.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return f
}

func (f *fakePlymouth) serve(conn net.Conn) {
	defer conn.Close()
	for {
		request := make([]byte, 2)
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		if request[1] == 0x02 {
			size := make([]byte, 1)
			_, _ = io.ReadFull(conn, size)
			argument := make([]byte, size[0])
			_, _ = io.ReadFull(conn, argument)
			request = append(append(request, size...), argument...)
		}
		if request[0] == 'P' {
			f.ping(conn)
			continue
		}
		f.mu.Lock()
		f.requests = append(f.requests, string(request))
		f.mu.Unlock()
		switch request[0] {
		case '*':
			if f.noSplash {
				_, _ = conn.Write([]byte{0x05})
			} else if f.password != "" {
				_, _ = conn.Write(plymouthReply(0x02, f.password))
			}
		case 'c':
			if len(f.cached) == 0 {
				_, _ = conn.Write([]byte{0x05})
			} else {
				_, _ = conn.Write(plymouthReply(0x09, strings.Join(f.cached, "\x00")+"\x00"))
			}
		default:
			_, _ = conn.Write([]byte{0x06})
		}
	}
}

// ping answers, unless the daemon hangs by now.
func (f *fakePlymouth) ping(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pings == 0 {
		return
	}
	f.pings--
	_, _ = conn.Write([]byte{0x06})
}

func plymouthReply(kind byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(text))), text...)
}

// got waits for the requests.
func (f *fakePlymouth) got(want ...string) {
	f.t.Helper()
	var seen []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		f.mu.Lock()
		seen = append([]string(nil), f.requests...)
		f.mu.Unlock()
		if len(seen) >= len(want) {
			break
		}
	}
	if fmt.Sprintf("%q", seen) != fmt.Sprintf("%q", want) {
		f.t.Errorf("plymouth got %q, want %q", seen, want)
	}
}

func TestPlymouthAnswers(t *testing.T) {
	t.Parallel()
	f := startPlymouth(t, &fakePlymouth{password: "hunter2"})
	a := New(Options{Plymouth: f.address})
	answer, err := a.Start(t.Context(), Question{Prompt: tokens.Prompt{Text: "PIN\n", TriesLeft: 2}}).Wait()
	if err != nil || string(answer.single().Bytes()) != "hunter2" || answer.Source != FromPlymouth {
		t.Errorf("%+v, %v", answer, err)
	}
	answer.Wipe()
	f.got("*\x02\x14PIN\\n, 2 tries left\x00")
}

func TestPlymouthCached(t *testing.T) {
	t.Parallel()
	f := startPlymouth(t, &fakePlymouth{password: "typed", cached: []string{"one", "two"}})
	a := New(Options{Plymouth: f.address, Cache: CacheReadOnly})
	q := Question{Prompt: tokens.Prompt{Text: "PIN", Keyring: "luksmith-test-absent"}}
	answer, err := a.Start(t.Context(), q).Wait()
	if err != nil || len(answer.Secrets) != 2 || string(answer.Secrets[1].Bytes()) != "two" {
		t.Errorf("%+v, %v", answer, err)
	}
	answer.Wipe()
	q.Attempt = 1
	answer, err = a.Start(t.Context(), q).Wait()
	if err != nil || string(answer.single().Bytes()) != "typed" {
		t.Errorf("%+v, %v", answer, err)
	}
	answer.Wipe()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.requests[0] != "c\x00" || !slices.Contains(f.requests, "*\x02\x04PIN\x00") || !slices.Contains(f.requests, "M\x02$Wrong passphrase, please try again.\x00") {
		t.Errorf("%q", f.requests)
	}
}

func TestPlymouthMessages(t *testing.T) {
	t.Parallel()
	f := startPlymouth(t, &fakePlymouth{})
	a := New(Options{Plymouth: f.address})
	done := a.Show("Touch the key")
	f.got("M\x02\x0eTouch the key\x00")
	done()
	f.got("M\x02\x0eTouch the key\x00", "m\x02\x0eTouch the key\x00")
}

func TestPlymouthLongTextIsCut(t *testing.T) {
	t.Parallel()
	packet := plymouthPacket('*', strings.Repeat("x", 253)+"日本")
	if len(packet) != 3+253+1 || int(packet[2]) != 254 || packet[len(packet)-1] != 0 {
		t.Errorf("%d bytes, length byte %d", len(packet), packet[2])
	}
	if packet := plymouthPacket('*', strings.Repeat("x", 254)); packet[2] != 255 || len(packet) != 3+255 {
		t.Errorf("%d bytes, length byte %d", len(packet), packet[2])
	}
}

// TestConsoleWithoutSplash: plymouthd runs without a splash, or not at all, or
// breaks off; the console asks.
func TestConsoleWithoutSplash(t *testing.T) {
	t.Parallel()
	broken, err := net.Listen("unix", fmt.Sprintf("@luksmith-test-%x", randomNumber()))
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	go func() {
		for {
			conn, err := broken.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte{0x02, 0xff, 0xff, 0xff, 0xff})
			_ = conn.Close()
		}
	}()
	for name, address := range map[string]string{
		"no splash": startPlymouth(t, &fakePlymouth{noSplash: true}).address,
		"absent":    "@luksmith-test-absent",
		"broken":    broken.Addr().String(),
	} {
		r := newRig(t)
		a := New(Options{Plymouth: address, Console: r.console})
		p := a.Start(t.Context(), Question{Prompt: pinPrompt})
		r.shows("PIN of the key: (press TAB for no echo)")
		r.types("typed\n")
		answer, err := p.Wait()
		if err != nil || answer.Source != FromConsole {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
		answer.Wipe()
		if _, err := ask(t, New(Options{Plymouth: address}), pinPrompt); !errors.Is(err, tokens.ErrNoPrompt) {
			t.Errorf("%s without console: %v", name, err)
		}
	}
}

func TestPlymouthWithdrawn(t *testing.T) {
	t.Parallel()
	f := startPlymouth(t, &fakePlymouth{})
	ctx, cancel := context.WithCancel(t.Context())
	p := New(Options{Plymouth: f.address}).Start(ctx, Question{Prompt: pinPrompt})
	f.got("*\x02\x0fPIN of the key\x00")
	cancel()
	if _, err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestHungPlymouthLeavesTheConsole: the daemon accepts and never answers, from the
// start or from some moment on.
func TestHungPlymouthLeavesTheConsole(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("unix", fmt.Sprintf("@luksmith-test-%x", randomNumber()))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	later := startPlymouth(t, &fakePlymouth{pings: 1})
	for name, address := range map[string]string{"at once": silent.Addr().String(), "later": later.address} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := New(Options{Plymouth: address, Console: r.console}).Start(t.Context(), Question{Prompt: pinPrompt})
			r.shows("PIN of the key: (press TAB for no echo)")
			r.types("typed\n")
			answer, err := p.Wait()
			if err != nil || answer.Source != FromConsole {
				t.Errorf("%+v, %v", answer, err)
			}
			answer.Wipe()
		})
	}
}

// TestPlymouthOfAnotherUserIsNotTrusted: anybody may take the abstract address.
func TestPlymouthOfAnotherUserIsNotTrusted(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	address := listenAs(t, 54321)
	r := newRig(t)
	a := New(Options{Plymouth: address, Console: r.console})
	a.Show("Touch the key")()
	p := a.Start(t.Context(), Question{Prompt: pinPrompt})
	r.shows("PIN of the key: (press TAB for no echo)")
	r.types("typed\n")
	answer, err := p.Wait()
	if err != nil || answer.Source != FromConsole {
		t.Errorf("%+v, %v", answer, err)
	}
	answer.Wipe()
	if _, err := dialPlymouth(t.Context(), address); err == nil || !strings.Contains(err.Error(), "belongs to user 54321") {
		t.Errorf("dialling: %v", err)
	}
}

// listenAs listens at an abstract address as another user, and answers every
// question there.
func listenAs(t *testing.T, uid int) (address string) {
	t.Helper()
	address = fmt.Sprintf("@luksmith-test-%x", randomNumber())
	type result struct {
		fd  int
		err error
	}
	listening := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with its user
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: address})
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 && err == nil {
			err = errno
		}
		if err == nil {
			err = unix.Listen(fd, 5)
		}
		listening <- result{fd, err}
	}()
	l := <-listening
	if l.err != nil {
		t.Fatal(l.err)
	}
	file := os.NewFile(uintptr(l.fd), "listener")
	listener, err := net.FileListener(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	f := &fakePlymouth{password: "stolen", pings: -1}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return address
}

func FuzzPlymouthReply(f *testing.F) {
	f.Add([]byte{0x05})
	f.Add(plymouthReply(0x02, "hunter2"))
	f.Add(plymouthReply(0x09, "a\x00b\x00"))
	f.Add([]byte{0x02, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, packet []byte) {
		list, err := readPlymouth(bytes.NewReader(packet))
		defer secret.WipeAll(list)
		if (err == nil) != (len(list) > 0) {
			t.Fatalf("%q: %d answers, %v", packet, len(list), err)
		}
		total := 0
		for _, s := range list {
			total += s.Len()
		}
		if total > len(packet) {
			t.Fatalf("%q gives %d bytes", packet, total)
		}
	})
}
