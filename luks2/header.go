package luks2

import "encoding/json"

// Header is what the header of a volume says, decoded and validated. It is a
// snapshot: it belongs to the caller and does not change. All text in it comes
// from the device and must be escaped before it reaches a terminal.
type Header struct {
	UUID      string // text as in the header, normally 36 characters
	Label     string // often empty
	Subsystem string // second label, often empty
	SeqID     uint64 // grows by one with every change
	Size      int    // bytes of one copy: 16 KiB … 4 MiB

	// The lists are ordered by number; an object with an unknown type is in them.
	Keyslots []Keyslot
	Tokens   []Token
	Segments []Segment
	Digests  []Digest
	Config   Config

	Copies [2]CopyStatus // primary, secondary
	// Foreign is what else has its signature on the device while one copy is damaged
	// or stale: "ext2/3/4". Something was written over the header, or this is an old
	// header under something new. Update refuses such a volume.
	Foreign string
	Space   Space

	requirement requirementSet
	identity    identity
}

// CopyStatus is the state of one of the two copies.
type CopyStatus struct {
	Offset uint64 // where it stands, bytes from the start of the header device
	SeqID  uint64 // 0 if it cannot be read
	Chosen bool   // the Header was decoded from this copy
	// Err says what is wrong with the copy, a [FormatError] or an I/O error; nil
	// for one that is valid, even if it is older than the other.
	Err error
}

// Space says how full the header is, in bytes.
type Space struct {
	JSONTotal uint64 // longest text that fits: 12287 in a header of 16 KiB
	JSONUsed  uint64
	// AreasTotal is the size of the keyslots area, AreasFree what no keyslot has,
	// possibly in pieces.
	AreasTotal, AreasFree uint64
	// KeyslotsLeft is how many more keyslots have a number and an area: those for the
	// data's key. Whether the text for them fits is another matter, see
	// [Device.Rehearse].
	KeyslotsLeft int
}

// Priority says when a keyslot is tried for a passphrase.
type Priority int

// The values of LUKS2 specification 1.1.3 §3.2. A keyslot without the member is
// PriorityNormal.
const (
	PriorityIgnore Priority = 0 // only when asked for by number
	PriorityNormal Priority = 1
	PriorityPrefer Priority = 2 // before the others
)

// Keyslot is one object of "keyslots".
type Keyslot struct {
	ID       int    // number in the header; this package adds 0..31
	Type     string // "luks2"; "reencrypt" and others hold no key for us
	KeySize  int    // bytes of the volume key
	Priority Priority
	AF       AF
	Area     Area
	KDF      KDF
	// Digest is the number of the digest that checks the key from this slot; -1
	// if none names it, so that the slot can open nothing.
	Digest int
}

// AF is the anti-forensic splitter of a keyslot.
type AF struct {
	Type    string // "luks1"
	Hash    string
	Stripes int // 4000
}

// Area is the place of a keyslot's key material.
type Area struct {
	Type       string // "raw"
	Encryption string // as dm-crypt names it: "aes-xts-plain64"
	KeySize    int    // bytes
	Offset     uint64 // bytes from the start of the header device
	Size       uint64 // bytes
}

// Segment is one part of the data device.
type Segment struct {
	ID         int
	Type       string // "crypt", "linear", "hw-opal", "hw-opal-crypt"
	Offset     uint64 // bytes from the start of the data device
	Size       uint64 // bytes; 0 means to the end of the device
	Encryption string // as dm-crypt names it
	SectorSize int    // bytes
	IVTweak    uint64 // sectors of 512 bytes
	Integrity  *Integrity
	Flags      []string
	Raw        json.RawMessage // the whole object
}

// Integrity is the "integrity" member of a segment.
type Integrity struct {
	Type              string // "hmac(sha256)", "aead", …
	JournalEncryption string
	JournalIntegrity  string
	KeySize           int // bytes; 0 if not given
}

// Digest is one object of "digests": it recognises a volume key.
type Digest struct {
	ID         int
	Type       string // "pbkdf2"
	Keyslots   []int
	Segments   []int
	Hash       string
	Iterations int
	Salt       []byte // nil if malformed
	Value      []byte // nil if malformed
}

// Config is the "config" object.
type Config struct {
	JSONSize     uint64   // bytes
	KeyslotsSize uint64   // bytes
	Flags        []string // persistent activation flags: "allow-discards", …
	Requirements []string // mandatory ones, see Header.WriteObstacle
}

// Keyslot returns the keyslot with that number.
func (h *Header) Keyslot(id int) (*Keyslot, bool) {
	for i := range h.Keyslots {
		if h.Keyslots[i].ID == id {
			return &h.Keyslots[i], true
		}
	}
	return nil, false
}

// Token returns the token with that number.
func (h *Header) Token(id int) (*Token, bool) {
	for i := range h.Tokens {
		if h.Tokens[i].ID == id {
			return &h.Tokens[i], true
		}
	}
	return nil, false
}

// Heeded are the tokens that programs look at: those with numbers that one gives.
// libcryptsetup shows no others, of which a header can have thousands.
func (h *Header) Heeded() []Token {
	n := 0
	for n < len(h.Tokens) && h.Tokens[n].ID < MaxTokens {
		n++
	}
	return h.Tokens[:n:n]
}

// TokensOf returns the heeded tokens that name a keyslot, by number.
func (h *Header) TokensOf(slot int) []Token {
	var list []Token
	for _, t := range h.Heeded() {
		for _, k := range t.Keyslots {
			if k == slot {
				list = append(list, t)
				break
			}
		}
	}
	return list
}

// Digest returns the digest with that number.
func (h *Header) Digest(id int) (*Digest, bool) {
	for i := range h.Digests {
		if h.Digests[i].ID == id {
			return &h.Digests[i], true
		}
	}
	return nil, false
}

// DataSegment is the segment whose key activation needs: during a re-encryption
// the one that it leads to, else number 0 (libcryptsetup
// LUKS2_get_default_segment).
func (h *Header) DataSegment() (*Segment, bool) {
	var data *Segment
	for i := range h.Segments {
		s := &h.Segments[i]
		for _, flag := range s.Flags {
			if flag == "backup-final" {
				return s, true
			}
		}
		if s.ID == 0 {
			data = s
		}
	}
	return data, data != nil
}

// OpensData reports whether the keyslot is in a digest of the data segment, so
// that its key is the one that activation needs. Slots of other keys exist:
// `cryptsetup luksAddKey --new-key-slot --unbound`.
func (h *Header) OpensData(slot int) bool {
	k, ok := h.Keyslot(slot)
	if !ok {
		return false
	}
	d, ok := h.Digest(k.Digest)
	s, hasData := h.DataSegment()
	if !ok || !hasData {
		return false
	}
	for _, id := range d.Segments {
		if id == s.ID {
			return true
		}
	}
	return false
}

// Damaged reports whether one copy is unusable or older than the other. The next
// command that writes repairs it.
func (h *Header) Damaged() bool {
	return h.Copies[0].Err != nil || h.Copies[1].Err != nil || h.Copies[0].SeqID != h.Copies[1].SeqID
}
