// Package helper runs the programs that hold C libraries, luksmith-fido2 and
// luksmith-pkcs11, and the one that draws recovery sheets, luksmith-sheet, and
// speaks to them over stdin and stdout.
//
// A helper is a process of its own so that the commands stay static and small, so
// that a device that never answers or a module that crashes can be killed, and so
// that copies of a PIN in C memory die with the process. One process serves one
// session with a device.
//
// The protocol is a sequence of messages, each a JSON frame followed by the number
// of secret frames that it announces. A frame is one byte for the kind, four bytes
// big-endian for the length, and the payload. Secrets travel outside the JSON and
// are read straight into [secret.Secret], because encoding/json leaves copies in
// the heap. The first message of a helper is its name and version.
package helper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"luksmith/luks2/secret"
)

// Limits of one message. Both ends refuse more: a helper handles what devices and
// headers say, and is not trusted with the memory of its parent.
const (
	MaxJSON    = 256 << 10
	MaxSecret  = 64 << 10
	MaxSecrets = 16
)

const (
	kindJSON   = 'J'
	kindSecret = 'S'
)

// ErrProtocol is any violation of the framing.
var ErrProtocol = errors.New("helper protocol violated")

// message is everything that crosses the pipe. Which members are set says what it
// is: Name greeting, Method request, Event notice, otherwise the answer.
type message struct {
	Name    string          `json:"name,omitempty"`
	Version string          `json:"version,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Event   string          `json:"event,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Secrets int             `json:"secrets,omitempty"`
}

// Error is a failure that a helper reports. Code is a word that the handler
// branches on, Message is for people and may hold text from a device: escape it
// before printing. Data carries numbers such as the tries left.
type Error struct {
	Code    string         `json:"code"`
	Message string         `json:"message,omitempty"`
	Data    map[string]int `json:"data,omitempty"`
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

func writeFrame(w io.Writer, kind byte, payload []byte) error {
	head := [5]byte{kind}
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	if len(payload) == 0 {
		return nil // a pipe of package io waits even for nothing to be read
	}
	_, err := w.Write(payload)
	return err
}

func readHead(r io.Reader, kind byte, limit int) (int, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != kind {
		return 0, fmt.Errorf("%w: frame kind %#02x instead of %#02x", ErrProtocol, head[0], kind)
	}
	if uint64(n) > uint64(limit) {
		return 0, fmt.Errorf("%w: frame of %d bytes, at most %d allowed", ErrProtocol, n, limit)
	}
	return int(n), nil
}

func send(w io.Writer, m *message, secrets []secret.Secret) error {
	if len(secrets) > MaxSecrets {
		return fmt.Errorf("%w: %d secrets, at most %d allowed", ErrProtocol, len(secrets), MaxSecrets)
	}
	m.Secrets = len(secrets)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > MaxJSON {
		return fmt.Errorf("%w: message of %d bytes, at most %d allowed", ErrProtocol, len(b), MaxJSON)
	}
	if err := writeFrame(w, kindJSON, b); err != nil {
		return err
	}
	for _, s := range secrets {
		if s.Len() > MaxSecret {
			return fmt.Errorf("%w: secret of %d bytes, at most %d allowed", ErrProtocol, s.Len(), MaxSecret)
		}
		if err := writeFrame(w, kindSecret, s.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// receive reads one message. The caller wipes the secrets.
func receive(r io.Reader) (*message, []secret.Secret, error) {
	n, err := readHead(r, kindJSON, MaxJSON)
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, nil, noEOF(err)
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if m.Secrets < 0 || m.Secrets > MaxSecrets {
		return nil, nil, fmt.Errorf("%w: %d secrets, at most %d allowed", ErrProtocol, m.Secrets, MaxSecrets)
	}
	var secrets []secret.Secret
	for range m.Secrets {
		n, err := readHead(r, kindSecret, MaxSecret)
		if err != nil {
			secret.WipeAll(secrets)
			return nil, nil, noEOF(err)
		}
		s := secret.New(n)
		secrets = append(secrets, s)
		if _, err := io.ReadFull(r, s.Bytes()); err != nil {
			secret.WipeAll(secrets)
			return nil, nil, noEOF(err)
		}
	}
	return &m, secrets, nil
}

// noEOF turns an end of file inside a message into an error that says so.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
