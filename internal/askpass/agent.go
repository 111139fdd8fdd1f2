package askpass

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// AgentDir is where systemd's password agents look (systemd.io/PASSWORD_AGENTS).
const AgentDir = "/run/systemd/ask-password"

// maxReply bounds a reply: a list of passphrases after one byte.
const maxReply = 64 << 10

// agentFile is the content of an ask.* file.
type agentFile struct {
	socket       string
	message, id  string
	icon         string
	acceptCached bool
	echo         Echo
	notAfter     uint64 // CLOCK_MONOTONIC, microseconds; 0: never
}

// text is the file as systemd 252 to 262 write it, member for member.
func (f *agentFile) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Ask]\nPID=%d\nSocket=%s\nAcceptCached=%c\nEcho=%c\nNotAfter=%d\nSilent=%c\n", os.Getpid(), f.socket,
		digit(f.acceptCached), digit(f.echo == EchoText), f.notAfter, digit(f.echo == EchoSilent))
	for _, line := range []struct{ key, value string }{{"Message", f.message}, {"Icon", f.icon}, {"Id", f.id}} {
		if line.value != "" {
			fmt.Fprintf(&b, "%s=%s\n", line.key, cli.Escape(line.value))
		}
	}
	return b.String()
}

func digit(b bool) rune {
	if b {
		return '1'
	}
	return '0'
}

// AgentID is the Id of questions about a volume, by which agents such as clevis
// know it: "cryptsetup:" and the device as attach was given it, in C escapes as
// systemd's cescape makes them.
func AgentID(device string) string { return "cryptsetup:" + cEscape(device) }

func cEscape(s string) string {
	const letters = "\a\b\f\n\r\t\v\\\"'"
	var b strings.Builder
	for _, c := range []byte(s) {
		if i := strings.IndexByte(letters, c); i >= 0 {
			b.WriteByte('\\')
			b.WriteByte(`abfnrtv\"'`[i])
		} else if c < ' ' || c >= 0x7f {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// agentID is the Id of a question: agents that know a volume by it answer with its
// passphrase, so it stands at no question for anything else. systemd sets none for
// PINs either.
func (o *Options) agentID(q *Question) string {
	if q.Credential != passphraseCredential || q.New {
		return ""
	}
	return o.ID
}

// byAgent publishes the question for agents and waits for a reply.
func (p *Pending) byAgent(ctx context.Context, v view) (Answer, error) {
	select {
	case <-p.revealed.ch:
	case <-ctx.Done():
		return Answer{}, cause(ctx)
	}
	o := p.asker.o
	f := agentFile{message: p.label(p.q.Text) + v.suffix + ":", id: o.agentID(&p.q), icon: o.Icon, echo: o.Echo, notAfter: monotonicDeadline(ctx)}
	f.acceptCached = p.q.cacheable(o.Cache) && p.q.automatic()
	if rest, ok := strings.CutPrefix(f.id, "cryptsetup:"); ok && v.repeat {
		f.id = "cryptsetup-verification:" + rest
	}
	list, err := askAgent(ctx, o.AgentDir, f)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Secrets: list, Source: FromAgent}, nil
}

// askAgent publishes one question in dir. The socket and the file are removed
// before it returns.
func askAgent(ctx context.Context, dir string, f agentFile) ([]secret.Secret, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a folder for questions: %w", err)
	}
	f.socket = filepath.Join(dir, fmt.Sprintf("sck.%x", randomNumber()))
	conn, err := listen(f.socket)
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.socket)
	defer conn.Close()
	path, err := publish(dir, f.text())
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	return receive(ctx, conn)
}

func randomNumber() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:])
}

// listen makes the socket, for us and root only, and has the kernel add the
// sender's credentials to every datagram.
func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket for password agents: %w", err)
	}
	// The mode of the socket's inode becomes that of the file: no umask to change
	// for the whole process.
	err = errors.Join(unix.Fchmod(fd, 0o600), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("making the socket %s for password agents: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil // not blocking, so that deadlines work
}

// publish writes the question under another name first: agents look for ask.*
// and must not read half of it.
func publish(dir, text string) (string, error) {
	f, err := os.CreateTemp(dir, "tmp.")
	if err != nil {
		return "", fmt.Errorf("writing a question for password agents: %w", err)
	}
	path := filepath.Join(dir, fmt.Sprintf("ask.%d", randomNumber()))
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", fmt.Errorf("writing a question for password agents: %w", err)
	}
	return path, nil
}

// receive waits for a valid reply. Datagrams of strangers, too long ones and
// those that are not replies are ignored, as in systemd.
func receive(ctx context.Context, conn *os.File) ([]secret.Secret, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buffer := secret.New(maxReply)
	defer buffer.Wipe()
	for {
		packet, err := receiveTrusted(conn, buffer)
		if ctx.Err() != nil {
			return nil, cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("receiving from a password agent: %w", err)
		}
		list, err := parseReply(packet)
		if errors.Is(err, errNoReply) {
			continue
		}
		return list, err
	}
}

// receiveTrusted waits for one datagram and returns the part of the buffer that it
// fills; nothing of one that is too long or comes from a stranger.
func receiveTrusted(conn *os.File, buffer secret.Secret) (packet []byte, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)) // no room for file descriptors
	var n, nc, flags int
	waiting := raw.Read(func(fd uintptr) (done bool) {
		n, nc, flags, _, err = unix.Recvmsg(int(fd), buffer.Bytes(), control, unix.MSG_CMSG_CLOEXEC)
		return err != unix.EAGAIN
	})
	if err := errors.Join(waiting, err); err != nil {
		return nil, err
	}
	if flags&unix.MSG_TRUNC != 0 || !trusted(control[:nc]) {
		return nil, nil
	}
	return buffer.Bytes()[:n], nil
}

// trusted reports whether the kernel says that root or our own user sent it.
func trusted(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return false
	}
	sender, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && (sender.Uid == 0 || int(sender.Uid) == os.Geteuid())
}

var errNoReply = errors.New("not a reply of a password agent")

// parseReply understands "+" with passwords, each ended by NUL or by the end of
// the datagram, and "-" for cancelled. A bare "+" is the empty password.
func parseReply(packet []byte) ([]secret.Secret, error) {
	switch {
	case len(packet) == 0:
	case packet[0] == '-':
		return nil, tokens.ErrCancelled
	case packet[0] == '+' && len(packet) == 1:
		return []secret.Secret{{}}, nil
	case packet[0] == '+':
		return splitList(packet[1:]), nil
	}
	return nil, errNoReply
}

// monotonicDeadline is the deadline of ctx as agents want it.
func monotonicDeadline(ctx context.Context) uint64 {
	deadline, ok := ctx.Deadline()
	var now unix.Timespec
	if !ok || unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return uint64(max(time.Duration(now.Nano())+time.Until(deadline), time.Microsecond) / time.Microsecond)
}
