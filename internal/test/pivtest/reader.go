package pivtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// Reader is a virtual smartcard reader with a pcscd of its own.
type Reader struct {
	// Env points PC/SC clients, such as OpenSC, to this pcscd.
	Env []string
	pid int // of pcscd
}

// Driver is vsmartcard's driver for pcscd.
const Driver = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"

const port = 35963 // vpcd's usual one

// NewReader starts pcscd with an empty virtual reader, in namespaces where
// /run/pcscd and the port of the driver are its own. It ends with the test.
func NewReader(t testing.TB) *Reader {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "pcscd", "unshare")
	if _, err := os.Stat(Driver); err != nil {
		testenv.Missing(t, Driver, "sh .ci/install-deps installs it (vsmartcard-vpcd)")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vpcd"), []byte(ReaderConf()), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "pcscd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c",
		"mkdir -p /run/pcscd && mount -t tmpfs tmpfs /run/pcscd && exec pcscd --foreground --info --config "+dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	socket := fmt.Sprintf("/proc/%d/root/run/pcscd/pcscd.comm", cmd.Process.Pid)
	await(t, socket, log.Name())
	return &Reader{Env: []string{"PCSCLITE_CSOCK_NAME=" + socket}, pid: cmd.Process.Pid}
}

// ReaderConf is the configuration of pcscd for the virtual reader.
func ReaderConf() string {
	return fmt.Sprintf("FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:0x%04X\nLIBPATH %s\nCHANNELID 0x%04X\n", port, Driver, port)
}

// await waits for pcscd.
func await(t testing.TB, socket, log string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(log)
		if _, err := os.Stat(socket); err == nil && strings.Contains(string(text), "daemon ready") {
			return
		}
	}
	text, _ := os.ReadFile(log)
	t.Fatalf("pcscd does not start:\n%s", text)
}

// Insert puts a card into the reader. remove pulls it out, which happens at the end
// of the test anyway. A test that wants the card to be seen waits for that itself:
// pcscd looks a few times a second.
func (r *Reader) Insert(t testing.TB, c *Card) (remove func()) {
	t.Helper()
	conn, err := dialInside(r.pid, port)
	if err != nil {
		t.Fatal(err)
	}
	stop := insertAt(conn, c)
	remove = sync.OnceFunc(func() {
		if err := stop(); err != nil {
			t.Errorf("card: %v", err)
		}
	})
	t.Cleanup(remove)
	return remove
}

// Dial puts a card into the virtual reader of this machine's pcscd. remove pulls it
// out and returns what went wrong meanwhile.
func Dial(c *Card) (remove func() error, err error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return insertAt(conn, c), nil
}

func insertAt(conn net.Conn, c *Card) (remove func() error) {
	done := make(chan error, 1)
	go func() { done <- serve(conn, c) }()
	return func() error {
		// A reset: with an ordinary end of the connection vpcd takes the answer to
		// a command that is under way for an empty one, and hangs now and then.
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// askATR is vpcd's control code, a message of one byte, that asks for the ATR:
// vsmartcard virtualsmartcard/src/vpcd/vpcd.h. The others, for power and reset,
// want no answer.
const askATR = 4

// serve answers the reader until one side hangs up.
func serve(conn net.Conn, c *Card) error {
	for {
		message, err := receive(conn)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		var answer []byte
		switch {
		case len(message) != 1:
			answer = c.transmit(message)
		case message[0] == askATR:
			answer = atr
		default:
			c.reset()
			continue
		}
		if err := send(conn, answer); err != nil {
			return err
		}
	}
}

// receive reads one message. vpcd sends the length and the rest in two packets and
// waits for us to acknowledge the first.
func receive(conn net.Conn) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	acknowledge(conn)
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, message)
	return message, err
}

func send(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}
