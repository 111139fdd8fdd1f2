package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"luksmith/internal/socket"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// What the server behind an AF_UNIX key file sees of us tells it which key to send
// (crypttab(5), "AF_UNIX key files"; names as in systemd 257).
const peerKey = "/cryptsetup/"

// peerOf is what it sees when a token type wants what stands in the key file.
func peerOf(server string) string { return "/" + server + "/" }

// answerPeriod is how long a server may take. Unlike systemd, which waits without limit.
const answerPeriod = 30 * time.Second

// readSocket connects to the server, sends nothing and reads to the end.
func (k *keyFile) readSocket(ctx context.Context) (secret.Secret, error) {
	deadline := time.Now().Add(k.timeout)
	patience, cancel := context.WithDeadlineCause(ctx, deadline, fmt.Errorf("the server accepts nobody: %w", tokens.ErrTimeout))
	defer cancel()
	f, err := socket.Dial(patience, socket.Unix(k.path), socket.Unix(k.localName()))
	if err != nil {
		return secret.Secret{}, fmt.Errorf("connecting: %w", err)
	}
	defer f.Close()
	return k.within(ctx, f, deadline, k.readAll)
}

// localName is an abstract address that nobody else has: a random number of one to
// sixteen hexadecimal digits and what the server looks at.
func (k *keyFile) localName() string {
	var b [8]byte
	rand.Read(b[:])
	return fmt.Sprintf("@%x%s", binary.NativeEndian.Uint64(b[:]), k.peer)
}
