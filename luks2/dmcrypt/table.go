package dmcrypt

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"luksmith/luks2/secret"
)

// keyName is the description of a volume key in the kernel (libcryptsetup's
// LUKS2_key_description_by_segment).
func (m *mapping) keyName() string { return fmt.Sprintf("cryptsetup:%s-d%d", m.UUID, m.Digest) }

// params are the words after "crypt" in the table line
// (Documentation/admin-guide/device-mapper/dm-crypt.rst):
//
//	cipher key iv_offset device offset [count flag…]
//
// A LUKS2 key is named, a LUKS1 key is written out, as libcryptsetup does; so
// they are a secret, which the caller wipes.
func (m *mapping) params(source *source, flags Flags) secret.Secret {
	var key []byte
	if m.Type == LUKS2 {
		key = fmt.Appendf(nil, ":%d:logon:%s", m.Key.Len(), m.keyName())
	}
	before := m.Segment.Encryption + " "
	after := fmt.Sprintf(" %d %s %d", m.Segment.IVTweak, source.number(), m.Segment.Offset/512)
	words := flags.names()
	if n := m.sectorSize(); n != 512 {
		words = append(words, "sector_size:"+strconv.Itoa(n))
	}
	if len(words) > 0 {
		after += fmt.Sprintf(" %d %s", len(words), strings.Join(words, " "))
	}
	keyLength := len(key)
	if key == nil {
		keyLength = hex.EncodedLen(m.Key.Len())
	}
	s := secret.New(len(before) + keyLength + len(after))
	b := s.Bytes()
	b = b[copy(b, before):]
	if key != nil {
		b = b[copy(b, key):]
	} else {
		b = b[hex.Encode(b, m.Key.Bytes()):]
	}
	copy(b, after)
	return s
}

// table is a dm-crypt table as the kernel shows it, without the key.
type table struct {
	cipher  string
	key     string // name of the key in the kernel; empty: the key is in the table
	keySize int    // bytes
	ivTweak uint64
	device  string // major:minor
	offset  uint64 // sectors of 512 bytes
	options []string
}

// parseTable reads the parameters of a dm-crypt target. A key that stands in
// there is measured and not copied.
func parseTable(params []byte) (*table, error) {
	words := bytes.Fields(params)
	if len(words) < 5 {
		return nil, fmt.Errorf("a dm-crypt table with %d words", len(words))
	}
	t := &table{cipher: string(words[0]), device: string(words[3])}
	switch key := words[1]; {
	case len(key) > 0 && key[0] == ':': // :size:type:description
		f := strings.SplitN(string(key), ":", 4)
		if len(f) != 4 {
			return nil, fmt.Errorf("a dm-crypt table with the key %q", key)
		}
		t.key = f[3]
		t.keySize, _ = strconv.Atoi(f[1])
	case !bytes.Equal(key, []byte("-")):
		t.keySize = len(key) / 2
	}
	var err error
	if t.ivTweak, err = strconv.ParseUint(string(words[2]), 10, 64); err != nil {
		return nil, fmt.Errorf("a dm-crypt table with the IV offset %q", words[2])
	}
	if t.offset, err = strconv.ParseUint(string(words[4]), 10, 64); err != nil {
		return nil, fmt.Errorf("a dm-crypt table with the offset %q", words[4])
	}
	if len(words) > 6 {
		for _, w := range words[6:] {
			t.options = append(t.options, string(w))
		}
	}
	return t, nil
}

// flags are the options that have a name here.
func (t *table) flags() Flags {
	var f Flags
	for _, n := range flagNames() {
		for _, o := range t.options {
			if o == n.table {
				f |= n.flag
			}
		}
	}
	return f
}

// sectorSize is the value of the option sector_size:N.
func (t *table) sectorSize() int {
	for _, o := range t.options {
		if v, ok := strings.CutPrefix(o, "sector_size:"); ok {
			if n, err := strconv.Atoi(v); err == nil {
				return n
			}
		}
	}
	return 512
}
