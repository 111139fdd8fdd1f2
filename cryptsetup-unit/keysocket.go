package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// What the server behind an AF_UNIX key file sees of us tells it which key to send
// (crypttab(5), "AF_UNIX key files"; names as in systemd 257).
const (
	peerKey      = "/cryptsetup/"
	peerFIDO2    = "/cryptsetup-fido2-salt/"
	peerPKCS11   = "/cryptsetup-pkcs11/"
	peerTPM2     = "/cryptsetup-tpm2/"
	answerPeriod = 30 * time.Second // ours: systemd waits for ever
)

// readSocket connects to the server, sends nothing and reads to the end.
func (k *keyFile) readSocket(ctx context.Context) (secret.Secret, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("making a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), k.path) // not blocking, so that deadlines work
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: k.localName()}); err != nil {
		return secret.Secret{}, fmt.Errorf("taking the name %s: %w", k.peer, err)
	}
	deadline := time.Now().Add(k.timeout)
	if err := connect(ctx, fd, k.path, deadline); err != nil {
		return secret.Secret{}, fmt.Errorf("connecting: %w", err)
	}
	return k.within(ctx, f, deadline, k.readAll)
}

// localName is an abstract address that nobody else has: a random number of one to
// sixteen hexadecimal digits and what the server looks at.
func (k *keyFile) localName() string {
	var b [8]byte
	rand.Read(b[:])
	return fmt.Sprintf("@%x%s", binary.NativeEndian.Uint64(b[:]), k.peer)
}

// connect goes on while the server's queue is full, which it is until somebody
// accepts.
func connect(ctx context.Context, fd int, path string, deadline time.Time) error {
	pause := 10 * time.Millisecond
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err != unix.EAGAIN {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server accepts nobody: %w", tokens.ErrTimeout)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
