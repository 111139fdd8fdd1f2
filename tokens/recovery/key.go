package recovery

import (
	"fmt"
	"io"

	"luksmith/luks2/secret"
)

// The shape of a key: systemd 262 src/shared/recovery-key.h.
const (
	// Groups is the number of groups, which people count from 1.
	Groups = 8
	// GroupLength is the number of letters in each.
	GroupLength = 8
	// Length is the length of a key in bytes, dashes included.
	Length = Groups*GroupLength + Groups - 1

	letters  = Groups * GroupLength
	keyBytes = letters / 2
)

// Alphabet are the 16 letters of modhex in the order of their values.
const Alphabet = "cbdefghijklnrtuv"

// Generate returns a new key of [Length] bytes. The caller wipes it.
func Generate() secret.Secret {
	raw := secret.Random(keyBytes)
	defer raw.Wipe()
	return encode(raw)
}

// encode writes 32 bytes as a key, the high half of each byte first.
func encode(raw secret.Secret) secret.Secret {
	key := secret.New(Length)
	for i, b := range raw.Bytes() {
		place(key.Bytes(), 2*i, Alphabet[b>>4])
		place(key.Bytes(), 2*i+1, Alphabet[b&15])
	}
	return key
}

// place puts letter n, counted from 0, into a key, and the dash before its group.
func place(key []byte, n int, letter byte) {
	at := n + n/GroupLength
	if n > 0 && n%GroupLength == 0 {
		key[at-1] = '-'
	}
	key[at] = letter
}

// Group returns group n, 1 to [Groups], of a key in the form of [Generate]. It
// shares the key's memory.
func Group(key secret.Secret, n int) []byte {
	at := (n - 1) * (GroupLength + 1)
	return key.Bytes()[at : at+GroupLength]
}

// Print writes the key and a newline to w in one piece, from locked memory.
func Print(w io.Writer, key secret.Secret) error {
	end := secret.Copy([]byte("\n"))
	line := secret.Join(key, end) // a copy made here would stay in registers
	defer secret.WipeAll([]secret.Secret{end, line})
	if _, err := w.Write(line.Bytes()); err != nil {
		return fmt.Errorf("writing the recovery key: %w", err)
	}
	return nil
}
