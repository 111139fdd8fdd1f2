package pivtest

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"math/big"
	"slices"
	"sync"
)

// Slots of PIV: SP 800-73-4 Part 1 table 4b.
const (
	Authentication = 0x9a
	KeyManagement  = 0x9d
)

// Status words: ISO/IEC 7816-4 §5.6.
const (
	swOK            = 0x9000
	swMoreData      = 0x6100
	swWrongPIN      = 0x63c0 // and the tries left
	swWrongLength   = 0x6700
	swNotVerified   = 0x6982
	swBlocked       = 0x6983
	swWrongData     = 0x6a80
	swNotFound      = 0x6a82
	swNoInstruction = 0x6d00
)

// Instructions.
const (
	insVerify              = 0x20
	insGeneralAuthenticate = 0x87
	insSelect              = 0xa4
	insGetResponse         = 0xc0
	insGetData             = 0xcb
	insYubicoSerial        = 0xf8
	insYubicoVersion       = 0xfd
)

// maxTries is the retry counter of a new card.
const maxTries = 3

// atr is that of a YubiKey 5 on a contact reader, by which OpenSC knows it.
var atr = []byte{0x3b, 0xfd, 0x13, 0x00, 0x00, 0x81, 0x31, 0xfe, 0x15, 0x80, 0x73, 0xc0, 0x21, 0xc0, 0x57, 0x59, 0x75, 0x62, 0x69, 0x4b, 0x65, 0x79, 0x40}

// aid is the application identifier of PIV: SP 800-73-4 Part 1 §2.2.
var aid = []byte{0xa0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00}

// objects maps the slot of a key to the data object with its certificate.
var objects = map[byte]uint32{Authentication: 0x5fc105, 0x9c: 0x5fc10a, KeyManagement: 0x5fc10b, 0x9e: 0x5fc101}

const objectCHUID = 0x5fc102

// fascN is the identifier in the CHUID of every YubiKey, which makes OpenSC take
// the serial number from the GUID there.
var fascN = []byte{0xd4, 0xe7, 0x39, 0xda, 0x73, 0x9c, 0xed, 0x39, 0xce, 0x73, 0x9d, 0x83, 0x68, 0x58, 0x21, 0x08, 0x42, 0x10, 0x84, 0x21, 0xc8, 0x42, 0x10, 0xc3, 0xeb}

// Card is a PIV card. Its methods may be called by several goroutines.
type Card struct {
	mu       sync.Mutex
	pin      string
	tries    int
	keys     map[byte]crypto.Signer
	data     map[uint32][]byte // by tag
	verified bool
	chain    []byte // data of a chained command so far
	answer   []byte // what GET RESPONSE will fetch
	used     int    // operations with private keys
}

// NewCard returns a card without keys. serial makes it another card. The PIN has
// at most 8 characters.
func NewCard(pin string, serial byte) *Card {
	guid := slices.Repeat([]byte{serial}, 16)
	guid[8] |= 0x80 // the variant of RFC 4122
	chuid := slices.Concat(
		tlv(0x30, fascN),
		tlv(0x34, guid),
		tlv(0x35, []byte("20391231")),
		tlv(0x3e, nil), tlv(0xfe, nil))
	return &Card{pin: pin, tries: maxTries, keys: map[byte]crypto.Signer{},
		data: map[uint32][]byte{objectCHUID: tlv(0x53, chuid)}}
}

// AddKey puts a key, *rsa.PrivateKey of 2048 bits or *ecdsa.PrivateKey on P-256 or
// P-384, and its certificate into a slot.
func (c *Card) AddKey(slot byte, key crypto.Signer, certificate []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[slot] = key
	c.data[objects[slot]] = tlv(0x53, slices.Concat(tlv(0x70, certificate), tlv(0x71, []byte{0}), tlv(0xfe, nil)))
}

// Tries is the retry counter.
func (c *Card) Tries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tries
}

// Used counts the operations with private keys.
func (c *Card) Used() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// reset is what power-on does.
func (c *Card) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified, c.chain, c.answer = false, nil, nil
}

// transmit answers one APDU.
func (c *Card) transmit(apdu []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(apdu) < 4 {
		return status(swWrongLength)
	}
	data, want, ok := body(apdu)
	if !ok {
		return status(swWrongLength)
	}
	if apdu[0]&0x10 != 0 { // ISO/IEC 7816-4 §5.1.1: more parts follow
		c.chain = append(c.chain, data...)
		return status(swOK)
	}
	data = append(c.chain, data...)
	c.chain = nil
	if apdu[1] == insGetResponse {
		return c.more(want)
	}
	out, sw := c.execute(apdu[1], apdu[3], data)
	if sw != swOK {
		return status(sw)
	}
	c.answer = out
	return c.more(want)
}

// maxShort is the length of the data in a short APDU.
const maxShort = 256

// body takes the data and the length of the wanted answer out of a short APDU.
func body(apdu []byte) (data []byte, want int, ok bool) {
	rest := apdu[4:]
	if len(rest) > 1 {
		n := int(rest[0])
		if len(rest) < 1+n {
			return nil, 0, false
		}
		data, rest = rest[1:1+n], rest[1+n:]
	}
	if len(rest) == 0 || rest[0] == 0 {
		return data, maxShort, len(rest) <= 1
	}
	return data, int(rest[0]), len(rest) == 1
}

// more hands out the next part of the answer.
func (c *Card) more(want int) []byte {
	part := slices.Clone(c.answer[:min(want, len(c.answer))])
	c.answer = c.answer[len(part):]
	if left := len(c.answer); left > 0 {
		return append(part, status(swMoreData|min(left, maxShort)&0xff)...)
	}
	return append(part, status(swOK)...)
}

func status(sw int) []byte { return []byte{byte(sw >> 8), byte(sw)} }

func (c *Card) execute(ins, p2 byte, data []byte) (out []byte, sw int) {
	switch ins {
	case insSelect:
		return c.selectApplication(data)
	case insGetData:
		return c.getData(data)
	case insVerify:
		return nil, c.verify(p2, data)
	case insGeneralAuthenticate:
		return c.authenticate(p2, data)
	case insYubicoVersion:
		return []byte{5, 4, 3}, swOK
	case insYubicoSerial:
		return []byte{0, 1, 2, 3}, swOK
	}
	return nil, swNoInstruction
}

// selectApplication answers with the application property template: SP 800-73-4
// Part 2 §3.1.1.
func (c *Card) selectApplication(name []byte) ([]byte, int) {
	if len(name) < 5 || len(name) > len(aid) || !slices.Equal(name, aid[:len(name)]) {
		return nil, swNotFound
	}
	return tlv(0x61, slices.Concat(tlv(0x4f, aid[5:]), tlv(0x79, tlv(0x4f, aid[:5])))), swOK
}

// getData answers with a data object or the discovery object, Part 2 §3.1.2.
func (c *Card) getData(request []byte) ([]byte, int) {
	tag, value, _, ok := parse(request)
	if !ok || tag != 0x5c {
		return nil, swWrongData
	}
	if len(value) == 1 && value[0] == 0x7e {
		return tlv(0x7e, slices.Concat(tlv(0x4f, aid), []byte{0x5f, 0x2f, 2, 0x40, 0})), swOK
	}
	var name uint32
	for _, b := range value {
		name = name<<8 | uint32(b)
	}
	object, ok := c.data[name]
	if !ok {
		return nil, swNotFound
	}
	return object, swOK
}

// verify checks the PIN, or says how many tries are left: Part 2 §3.2.1.
func (c *Card) verify(reference byte, data []byte) int {
	switch {
	case reference != 0x80:
		return swNotFound
	case c.tries == 0:
		return swBlocked
	case len(data) == 0 && c.verified:
		return swOK
	case len(data) == 0:
		return swWrongPIN | c.tries
	case len(data) != 8:
		return swWrongData
	}
	padded := slices.Concat([]byte(c.pin), slices.Repeat([]byte{0xff}, 8-len(c.pin)))
	if c.verified = slices.Equal(data, padded); !c.verified {
		c.tries--
		return swWrongPIN | c.tries
	}
	c.tries = maxTries
	return swOK
}

// authenticate uses a private key: Part 2 §3.2.4. 0x81 holds an RSA block, 0x85 the
// other side's point.
func (c *Card) authenticate(slot byte, data []byte) ([]byte, int) {
	key, ok := c.keys[slot]
	tag, template, _, valid := parse(data)
	switch {
	case !ok:
		return nil, swNotFound
	case !c.verified:
		return nil, swNotVerified
	case !valid || tag != 0x7c:
		return nil, swWrongData
	}
	c.used++
	for len(template) > 0 {
		tag, value, rest, valid := parse(template)
		if !valid {
			break
		}
		if result := operate(key, tag, value); result != nil {
			return tlv(0x7c, tlv(0x82, result)), swOK
		}
		template = rest
	}
	return nil, swWrongData
}

// operate is the bare operation; nil if key and tag do not go together.
func operate(key crypto.Signer, tag int, value []byte) []byte {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if tag == 0x81 && len(value) == key.Size() {
			m := new(big.Int).Exp(new(big.Int).SetBytes(value), key.D, key.N)
			return m.FillBytes(make([]byte, key.Size()))
		}
	case *ecdsa.PrivateKey:
		if tag == 0x85 {
			return agree(key, value)
		}
	}
	return nil
}

func agree(key *ecdsa.PrivateKey, point []byte) []byte {
	private, err := key.ECDH()
	if err != nil {
		return nil
	}
	var public *ecdh.PublicKey
	if public, err = private.Curve().NewPublicKey(point); err != nil {
		return nil
	}
	x, err := private.ECDH(public)
	if err != nil {
		return nil
	}
	return x
}

// tlv encodes a data object with a tag of one byte: ISO/IEC 7816-4 §5.2.2.
func tlv(tag byte, value []byte) []byte {
	n := len(value)
	head := []byte{tag, byte(n)}
	switch {
	case n > 255:
		head = []byte{tag, 0x82, byte(n >> 8), byte(n)}
	case n > 127:
		head = []byte{tag, 0x81, byte(n)}
	}
	return append(head, value...)
}

// parse takes a data object off the front of b.
func parse(b []byte) (tag int, value, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, n, b := int(b[0]), int(b[1]), b[2:]
	if n > 0x80 {
		size := n - 0x80
		if size > 2 || len(b) < size {
			return 0, nil, nil, false
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
	}
	if n > len(b) {
		return 0, nil, nil, false
	}
	return tag, b[:n], b[n:], true
}
