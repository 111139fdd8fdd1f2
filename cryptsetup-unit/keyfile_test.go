package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
)

func write(t testing.TB, path string, content []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good"), []byte("0123456789\n"), 0o600)
	big := filepath.Join(dir, "big")
	write(t, big, nil, 0o600)
	if err := os.Truncate(big, maxKeyFile+1); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file keyFile
		want string
		err  string
	}{
		"all of it":         {keyFile{path: good}, "0123456789\n", ""},
		"part":              {keyFile{path: good, offset: 2, size: 3}, "234", ""},
		"size beyond end":   {keyFile{path: good, size: 100}, "0123456789\n", ""},
		"link":              {keyFile{path: link}, "0123456789\n", ""},
		"offset behind end": {keyFile{path: good, offset: 11}, "", "it ends before keyfile-offset=11"},
		"huge offset":       {keyFile{path: good, offset: 1 << 63}, "", "keyfile-offset= is larger"},
		"too large":         {keyFile{path: big}, "", "has more than 8388608 bytes"},
		"part of too large": {keyFile{path: big, size: 4}, "\x00\x00\x00\x00", ""},
		"directory":         {keyFile{path: dir}, "", "is a directory"},
		"FIFO":              {keyFile{path: fifo}, "", "nobody wrote to the FIFO within"},
		"absent":            {keyFile{path: filepath.Join(dir, "absent")}, "", "no such file"},
		"relative":          {keyFile{path: "good"}, "", "not absolute"},
		"empty":             {keyFile{path: "/dev/null"}, "", "is empty"},
		"endless":           {keyFile{path: "/dev/zero"}, "", "has more than"},
		"unreadable":        {keyFile{path: "/proc/self/mem"}, "", "input/output error"},
		"device with size":  {keyFile{path: "/dev/zero", size: 3}, "\x00\x00\x00", ""},
		"silent terminal":   {keyFile{path: "/dev/ptmx", timeout: 20 * time.Millisecond}, "", "no key came within 20ms"},
		"no such device":    {keyFile{path: deadNode(t)}, "", "no such device or address"},
	} {
		tt.file.warn = func(w string) { t.Errorf("%s: warning %q", name, w) }
		key, err := tt.file.read(t.Context())
		if tt.err == "" && (err != nil || string(key.Bytes()) != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %q, %v; want %q, %q", name, key.Bytes(), err, tt.want, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the path stands in the cause, where the caller adds it again: %v", name, err)
		}
		key.Wipe()
	}
}

// deadNode is a device node without a device: open gives ENXIO, as for a socket.
func deadNode(t *testing.T) string {
	t.Helper()
	testenv.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "node")
	const localUse = 60 // a block major that no driver takes (Linux, admin-guide/devices.txt)
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(localUse, 0))); err != nil {
		testenv.NotApplicable(t, "no device nodes can be made here: "+err.Error())
	}
	return path
}

func TestKeyFileThatEverybodyCanReadIsWarnedAbout(t *testing.T) {
	t.Parallel()
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o602: true} {
		warned := ""
		f := keyFile{path: write(t, filepath.Join(t.TempDir(), "k"), []byte("x"), mode), warn: func(w string) { warned = w }}
		key, err := f.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		if (warned != "") != want {
			t.Errorf("mode %04o: %q", mode, warned)
		}
	}
}

func TestKeyFileStaysOnItsFileSystem(t *testing.T) {
	t.Parallel()
	outside, root := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"), []byte("outside"), 0o600)
	write(t, filepath.Join(root, "key"), []byte("inside"), 0o600)
	for name, target := range map[string]string{"up": "../../../../../../.." + outside + "/secret", "absolute": filepath.Join(outside, "secret"), "in": "/key"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"/key": "inside", "/in": "inside", "/up": "", "/absolute": "", "/../../key": "inside"} {
		f := keyFile{path: path, root: root, warn: func(string) {}}
		key, err := f.read(t.Context())
		if want == "" && err == nil || want != "" && string(key.Bytes()) != want {
			t.Errorf("%s: %q, %v", path, key.Bytes(), err)
		}
		key.Wipe()
	}
}

// serve answers connections and reports the names of the peers, as many as somebody
// reads.
func serve(t *testing.T, answer func(net.Conn)) (path string, peers chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	peers = make(chan string, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case peers <- c.RemoteAddr().String():
			default:
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return path, peers
}

func TestKeyFromSocket(t *testing.T) {
	t.Parallel()
	path, peer := serve(t, func(c net.Conn) {
		for range 3 {
			_, _ = c.Write([]byte("part "))
			time.Sleep(5 * time.Millisecond)
		}
	})
	f := keyFile{path: path, peer: peerKey + "vol", timeout: 5 * time.Second}
	key, err := f.read(t.Context())
	if err != nil || string(key.Bytes()) != "part part part " {
		t.Errorf("%q, %v", key.Bytes(), err)
	}
	key.Wipe()
	if name := <-peer; !regexp.MustCompile(`^@[1-9a-f][0-9a-f]{0,15}/cryptsetup/vol$`).MatchString(name) {
		t.Errorf("the server sees %q", name)
	}
}

func TestKeySocketLimits(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, func(c net.Conn) { _, _ = c.Write(bytes.Repeat([]byte("x"), maxKeyFile+10)) })
	if _, err := (&keyFile{path: path, peer: peerKey + "v", timeout: 5 * time.Second}).read(t.Context()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("flood: %v", err)
	}
	path, _ = serve(t, func(c net.Conn) { _, _ = c.Write([]byte("abcdef")) })
	key, err := (&keyFile{path: path, peer: peerKey + "v", timeout: 5 * time.Second, size: 3}).read(t.Context())
	if err != nil || string(key.Bytes()) != "abc" {
		t.Errorf("keyfile-size=: %q, %v", key.Bytes(), err)
	}
	key.Wipe()
	if _, err := (&keyFile{path: path, peer: peerKey + "v", offset: 1}).read(t.Context()); !errors.Is(err, unix.ENXIO) {
		t.Errorf("with keyfile-offset= nobody connects: %v", err)
	}
}

func TestSilentSocketEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, func(net.Conn) { time.Sleep(10 * time.Second) })
	f := keyFile{path: path, peer: peerKey + "vol", timeout: 50 * time.Millisecond}
	if _, err := f.read(t.Context()); !errors.Is(err, tokens.ErrTimeout) {
		t.Errorf("silent: %v", err)
	}
	f.timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	path, _ = serve(t, func(net.Conn) { time.Sleep(10 * time.Second) })
	f.path = path
	if _, err := f.read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestServerThatNeverAcceptsIsNotWaitedForWithoutEnd fills the queue of a listener.
func TestServerThatNeverAcceptsIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f := keyFile{path: path, peer: peerKey + "vol", timeout: 50 * time.Millisecond}
		start := time.Now()
		if _, err := f.read(t.Context()); !errors.Is(err, tokens.ErrTimeout) {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	}
}

func TestErasingKeyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := bytes.Repeat([]byte("secret key "), 10000)
	path := write(t, filepath.Join(dir, "k"), content, 0o600)
	keep, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	if err := eraseKeyFile(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	left := make([]byte, len(content)+1)
	n, _ := keep.Read(left)
	if n != len(content) || bytes.Contains(left, []byte("secret key")) {
		t.Errorf("%d bytes are left, or the key", n)
	}
	if err := eraseKeyFile(path); err != nil {
		t.Errorf("a file that is gone: %v", err)
	}
	for _, path := range []string{dir, "/dev/null"} {
		if err := eraseKeyFile(path); err == nil {
			t.Errorf("%s was erased", path)
		}
	}
}

func TestErasingKeepsHardLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "k"), []byte("key"), 0o600)
	if err := os.Link(path, filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if err := eraseKeyFile(path); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "other")); string(b) != "key" {
		t.Errorf("the other name holds %q", b)
	}
}

// TestKeyFileThatEndsInALineEndSaysSo, with the option that leaves it out.
func TestKeyFileThatEndsInALineEndSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	key := b.file(t, "k", rightPassphrase+"\n")
	_, err := b.run(t, "vol", newImage(t), key, "headless")
	var hinted interface{ Hint() string }
	if err == nil || !strings.Contains(err.Error(), "; the key ends with a line end") || !errors.As(err, &hinted) {
		t.Fatalf("%v", err)
	}
	option, _, _ := strings.Cut(hinted.Hint()[strings.Index(hinted.Hint(), "keyfile-size="):], " ")
	if _, err := b.run(t, "vol", newImage(t), key, "headless,"+option); err != nil {
		t.Errorf("with the option of the hint, %s: %v", option, err)
	}
}

func TestOffsetBehindTheEndIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.run(t, "vol", newImage(t), b.file(t, "k", "short"), "headless,keyfile-offset=512"); err == nil || !strings.Contains(err.Error(), "it ends before keyfile-offset=512") {
		t.Error(err)
	}
}
