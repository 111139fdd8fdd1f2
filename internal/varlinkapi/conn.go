package varlinkapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// maxMessage bounds one message of a caller.
const maxMessage = 64 << 10

// maxFiles bounds the descriptors that come with it.
const maxFiles = 8

// conn is the transport of one caller: messages end with a zero byte, and what is
// read lies in locked memory, since passphrases are in it. It is a
// varlink.ReadWriterContext.
type conn struct {
	socket *net.UnixConn
	buffer secret.Secret
	filled int        // bytes of buffer
	files  []*os.File // that came with them

	// reveal takes the place of the mark in what is written next.
	reveal secret.Secret
}

func newConn(socket *net.UnixConn) *conn {
	return &conn{socket: socket, buffer: secret.New(maxMessage)}
}

// close forgets what was read.
func (c *conn) close() {
	c.buffer.Wipe()
	c.closeFiles()
	_ = c.socket.Close()
}

func (c *conn) closeFiles() {
	for _, f := range c.files {
		_ = f.Close()
	}
	c.files = nil
}

// next reads one message, without its zero byte, and takes what came with it. The
// message is valid until done.
func (c *conn) next() (message []byte, files []*os.File, err error) {
	for {
		if n := bytes.IndexByte(c.buffer.Bytes()[:c.filled], 0); n >= 0 {
			files, c.files = c.files, nil
			return c.buffer.Bytes()[:n], files, nil
		}
		if c.filled == maxMessage {
			return nil, nil, errors.New("a message is too long")
		}
		if err := c.fill(); err != nil {
			return nil, nil, err
		}
	}
}

func (c *conn) fill() error {
	control := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := c.socket.ReadMsgUnix(c.buffer.Bytes()[c.filled:], control)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(control[:oobn])
	if err != nil {
		return err
	}
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // credentials and the like
		}
		for _, fd := range rights {
			c.files = append(c.files, os.NewFile(uintptr(fd), "descriptor of the caller"))
		}
	}
	if n == 0 {
		return io.EOF
	}
	c.filled += n
	return nil
}

// done forgets the message that next returned.
func (c *conn) done(message []byte) {
	b := c.buffer.Bytes()
	rest := copy(b, b[len(message)+1:c.filled])
	secret.Wipe(b[rest:c.filled])
	c.filled = rest
}

// mark stands in a reply where a secret goes, which must not pass through the buffers
// of an encoder.
const mark = "luksmith-secret-goes-here"

// Write sends a reply, with the secret instead of the mark.
func (c *conn) Write(_ context.Context, b []byte) (int, error) {
	before, after, found := bytes.Cut(b, []byte(mark))
	pieces := [][]byte{before}
	if found {
		pieces = append(pieces, c.reveal.Bytes(), after)
	}
	for _, piece := range pieces {
		if _, err := c.socket.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// Read and ReadBytes are for protocols that take over the connection: there are none.
func (c *conn) Read(context.Context, []byte) (int, error) { return 0, errors.ErrUnsupported }

// ReadBytes is as Read.
func (c *conn) ReadBytes(context.Context, byte) ([]byte, error) { return nil, errors.ErrUnsupported }

// alive reports whether the caller still waits for the reply.
func (c *conn) alive() error {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return err
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	if err == nil && gone {
		err = errors.New("the caller has hung up")
	}
	return err
}

// trusted reports whether root or the same user is at the other end.
func (c *conn) trusted() bool {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	if raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return false
	}
	return peer.Uid == 0 || peer.Uid == uint32(os.Geteuid())
}
