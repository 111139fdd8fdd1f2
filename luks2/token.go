package luks2

import "encoding/json"

// Limits of the format: LUKS2 specification 1.1.3 and cryptsetup's
// lib/luks2/luks2.h.
const (
	MaxKeyslots = 32
	MaxTokens   = 32
)

// Token is one object of the header's "tokens". Raw is the whole JSON object as
// it stands in the header, byte for byte, including type and keyslots; a handler
// parses the members it knows and must treat every one as untrusted.
type Token struct {
	ID       int // number in the header, 0..31; ignored by Tx.AddToken
	Type     string
	Keyslots []int // the slots this token names; systemd writes exactly one
	Raw      json.RawMessage
}
