// Package escrow encrypts recovery keys to those who keep them for others: an
// administrator, a service desk, a safe.
//
// What goes out is an [Envelope], a JSON document that says of which volume the key
// is, for a person or a database to find it by, with the key encrypted in the format
// of age (https://age-encryption.org/v1). The key alone is encrypted, so that age
// itself gives it back:
//
//	jq -r .age FILE | age --decrypt --identity=IDENTITY
//
// Nothing vouches for the members beside the key. One that was changed leads to
// another volume, which the key does not open; [Envelope.Open] and a try tell.
//
// filippo.io/age copies the key, and the identities that decrypt it, into buffers on
// the heap, so it runs inside [secret.Do], as package qr does.
package escrow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

// Type and Version are the first two members of an [Envelope].
const (
	Type    = "luksmith-escrow"
	Version = 1
)

// maxEnvelope bounds a file with an envelope: each recipient takes 2 KiB at most.
const maxEnvelope = 256 << 10

// Envelope is a recovery key for others to keep. docs/formats.md has its members.
type Envelope struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	// UUID and VolumeLabel are those of the volume.
	UUID        string `json:"uuid"`
	VolumeLabel string `json:"volume_label,omitempty"`
	Host        string `json:"host,omitempty"`
	// Slot is the number of the keyslot when it was enrolled, Label its name.
	Slot       int      `json:"slot"`
	Label      string   `json:"label,omitempty"`
	Created    string   `json:"created"` // RFC 3339, UTC
	Recipients []string `json:"recipients"`
	Age        string   `json:"age"` // an armoured age file with the key, 71 bytes
}

// Recipients are the public keys that a key is encrypted to. The zero value has none.
type Recipients struct {
	keys  []age.Recipient
	names []string
}

// Empty reports whether there is none.
func (r *Recipients) Empty() bool { return len(r.keys) == 0 }

// Add takes another public key: age1… or, against quantum computers, age1pq1….
// Those of age's plugins are refused: they would need the plugin, a program, to run.
func (r *Recipients) Add(text string) error {
	key, err := parseRecipient(text)
	if err != nil {
		return tokens.Usagef("%w", err)
	}
	all := append(r.keys, key)
	// age refuses to mix those that resist quantum computers with those that do not.
	if _, err := age.Encrypt(io.Discard, all...); err != nil {
		return tokens.Usagef("%w", err)
	}
	r.keys, r.names = all, append(r.names, text)
	return nil
}

func parseRecipient(text string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(text, "AGE-SECRET-KEY-"):
		return nil, errors.New("this is the secret key; the recipient is the public one, age1…")
	case strings.HasPrefix(text, "age1pq1"):
		return age.ParseHybridRecipient(text)
	case strings.Count(text, "1") > 1 && strings.HasPrefix(text, "age1"):
		return nil, errors.New("those of plugins are not supported")
	}
	return age.ParseX25519Recipient(text)
}

// Seal encrypts a key to the recipients and fills in the rest of the envelope. The
// key is borrowed.
func (e *Envelope) Seal(key secret.Secret, to *Recipients, now time.Time) error {
	var text bytes.Buffer
	var err error
	secret.Do(func() { err = encrypt(&text, key.Bytes(), to.keys) })
	collect()
	if err != nil {
		return fmt.Errorf("encrypting the recovery key: %w", err)
	}
	e.Type, e.Version, e.Age = Type, Version, string(bytes.Clone(text.Bytes()))
	e.Created, e.Recipients = now.UTC().Format(time.RFC3339), to.names
	return nil
}

func encrypt(to io.Writer, key []byte, recipients []age.Recipient) error {
	a := armor.NewWriter(to)
	w, err := age.Encrypt(a, recipients...)
	if err != nil {
		return err
	}
	if _, err := w.Write(key); err != nil {
		return err
	}
	return errors.Join(w.Close(), a.Close())
}

// collect has the runtime erase what was allocated inside secret.Do: package qr.
func collect() {
	runtime.GC()
	runtime.GC()
}

// Read reads an envelope.
func Read(r io.Reader) (*Envelope, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxEnvelope+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxEnvelope:
		return nil, fmt.Errorf("it has more than %d bytes", maxEnvelope)
	}
	e := &Envelope{}
	if err := json.Unmarshal(text, e); err != nil || e.Type != Type {
		return nil, errors.New("it is not an escrowed recovery key of luksmith")
	}
	if e.Version != Version {
		return nil, fmt.Errorf("its version is %d, this program knows %d", e.Version, Version)
	}
	return e, nil
}

// Open decrypts the key with the identities in a file of age-keygen, which are
// borrowed. Errors hold nothing of them. The caller wipes the key.
func (e *Envelope) Open(identities secret.Secret) (secret.Secret, error) {
	plain := secret.New(recovery.Length + 1) // one more tells what is too long
	n, failure := 0, ""
	secret.Do(func() { n, failure = decrypt(e.Age, identities.Bytes(), plain.Bytes()) })
	collect()
	defer plain.Wipe()
	if failure != "" {
		return secret.Secret{}, fmt.Errorf("decrypting the escrowed key: %s", failure)
	}
	text := secret.Copy(plain.Bytes()[:n])
	defer text.Wipe()
	key, err := recovery.Parse(text)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("what was escrowed is not a recovery key: %w", err)
	}
	return key, nil
}

// decrypt fills plain and says how much of it, or what failed in words of its own:
// what is allocated here is erased afterwards.
func decrypt(text string, identities, plain []byte) (int, string) {
	keys, err := age.ParseIdentities(bytes.NewReader(identities))
	if err != nil {
		return 0, "there are no identities of age in the file"
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), keys...)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return 0, "it is for other identities"
	}
	if err != nil {
		return 0, "it is damaged"
	}
	n, err := io.ReadFull(r, plain)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, "it is damaged"
	}
	return n, ""
}
