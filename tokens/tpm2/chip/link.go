package chip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/socket"
)

// Sizes of messages (TPM 2.0 Part 2 §6.1: TPM2_MAX_RESPONSE_SIZE of a PC).
const (
	headerSize  = 10 // tag, length, code
	maxResponse = 4096
)

// commandTimeout is the longest a single command may take. Making an RSA key
// takes the slowest chips ten to thirty seconds.
const commandTimeout = 2 * time.Minute

// errNonsense is what no TPM answers: it is there, and cannot be believed.
var errNonsense = errors.New("that is no answer of a TPM")

// Link carries whole commands and responses to one TPM.
type Link interface {
	// Exchange sends a command and reads its response, whose length field has
	// been checked. It returns soon after ctx ends; the link is of no use then.
	Exchange(ctx context.Context, command []byte) ([]byte, error)
	Close() error
}

// socketLink is a swtpm: commands and responses follow each other on a stream.
type socketLink struct{ conn *os.File }

func dialLink(ctx context.Context, address unix.Sockaddr) (Link, error) {
	conn, err := socket.Dial(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	return &socketLink{conn}, nil
}

// Close ends the connection.
func (l *socketLink) Close() error { return l.conn.Close() }

// Exchange waits for the response until ctx ends.
func (l *socketLink) Exchange(ctx context.Context, command []byte) ([]byte, error) {
	if err := l.conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return nil, err
	}
	// A deadline in the past wakes the reader.
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	response, err := l.roundTrip(command)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return response, err
}

func (l *socketLink) roundTrip(command []byte) ([]byte, error) {
	if _, err := l.conn.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, headerSize, 512)
	if _, err := io.ReadFull(l.conn, response); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(response[2:])
	if n < headerSize || n > maxResponse {
		return nil, fmt.Errorf("%w: a response of %d bytes", errNonsense, n)
	}
	response = append(response, make([]byte, n-headerSize)...)
	_, err := io.ReadFull(l.conn, response[headerSize:])
	return response, err
}

// deviceLink is a character device of the kernel's: /dev/tpmrm0, where the kernel
// keeps the objects of several users apart, or /dev/tpm0.
type deviceLink struct{ file *os.File }

// openDeviceLink opens the device without blocking, so that a wait for a response
// can end with the context. Only poll(2) says when the response is there: a read
// before it returns nothing.
func openDeviceLink(path string) (Link, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &deviceLink{os.NewFile(uintptr(fd), path)}, nil
}

// Close closes the device; the kernel forgets what was loaded through it.
func (l *deviceLink) Close() error { return l.file.Close() }

// Exchange waits for the response until ctx ends.
func (l *deviceLink) Exchange(ctx context.Context, command []byte) ([]byte, error) {
	fd, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var response []byte
	if e := fd.Control(func(fd uintptr) { response, err = exchangeOnDevice(ctx, int(fd), command) }); e != nil {
		return nil, e
	}
	return response, err
}

func exchangeOnDevice(ctx context.Context, fd int, command []byte) ([]byte, error) {
	if _, err := unix.Write(fd, command); err != nil {
		return nil, os.NewSyscallError("write", err)
	}
	if err := waitReadable(ctx, fd); err != nil {
		return nil, err
	}
	response := make([]byte, maxResponse)
	n, err := unix.Read(fd, response)
	if err != nil {
		return nil, os.NewSyscallError("read", err)
	}
	response = response[:n]
	if n < headerSize || int(binary.BigEndian.Uint32(response[2:])) != n {
		return nil, fmt.Errorf("%w: a response of %d bytes", errNonsense, n)
	}
	return response, nil
}

// waitReadable polls in slices, because a poll cannot be woken by a context.
func waitReadable(ctx context.Context, fd int) error {
	const slice = 50 * time.Millisecond
	for deadline := time.Now().Add(commandTimeout); time.Now().Before(deadline); {
		if err := ctx.Err(); err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(slice.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n > 0 && fds[0].Revents&unix.POLLIN != 0:
			return nil
		case n > 0:
			return unix.ENODEV
		}
	}
	return os.ErrDeadlineExceeded
}
