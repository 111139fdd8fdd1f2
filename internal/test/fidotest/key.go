package fidotest

import (
	"context"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// Firmware is a family of firmware.
type Firmware int

const (
	// CTAP21 is firmware A of docs/formats.md: CTAP 2.1 with pinUvAuthToken. It
	// refuses hmac-secret without a touch and makes credentials without the PIN.
	CTAP21 Firmware = iota
	// CTAP20 is firmware B: CTAP 2.0 with PIN protocol 1. It gives secrets
	// without a touch, wants the PIN for a new credential once one is set, and
	// answers nothing but clientPIN and getInfo while its PIN is blocked.
	CTAP20
)

// behaviour is where the families differ.
type behaviour struct {
	versions          []string
	extensions        []string
	protocols         []uint
	announcesUP       bool // "up" is in getInfo
	permissions       bool // pinUvAuthToken, clientPIN subcommands 6 and 9
	needsTouchForHMAC bool // up=false with hmac-secret is UNSUPPORTED_OPTION
	createsWithoutPIN bool // makeCredUvNotRqd
	ignoresUVOption   bool // uv=true without built-in verification is answered
	edDSA             bool
	blockedRefuses    bool // a blocked PIN ends every makeCredential and getAssertion
}

var behaviours = map[Firmware]behaviour{
	CTAP21: {
		versions: []string{"FIDO_2_0", "FIDO_2_1"}, extensions: []string{"credProtect", "hmac-secret"}, protocols: []uint{2, 1},
		permissions: true, needsTouchForHMAC: true, createsWithoutPIN: true, edDSA: true,
	},
	CTAP20: {
		versions: []string{"FIDO_2_0"}, extensions: []string{"hmac-secret"}, protocols: []uint{1},
		announcesUP: true, ignoresUVOption: true, blockedRefuses: true,
	},
}

// Config is the make of a key. The zero value is a CTAP 2.1 key without PIN that
// gets touched at once.
type Config struct {
	Firmware Firmware
	// Seed makes two keys the same key: credentials of one work on the other.
	// Empty means random.
	Seed string
	PIN  string
	// PINHash takes the place of PIN for tests that look for it in memory: the
	// first 16 bytes of its SHA-256.
	PINHash []byte
	AAGUID  [16]byte
	Product string
	// BuiltInUV gives the key a fingerprint reader with an enrolled finger.
	BuiltInUV bool
	// AlwaysUV makes it verify the user for everything but pre-flights.
	AlwaysUV bool
	// NoHMACSecret leaves the extension out.
	NoHMACSecret bool
	// CredentialIDSize is the length of credential ids, 0 for the smallest.
	CredentialIDSize int
	// OptionLies replace what getInfo says about options; nil removes one.
	OptionLies map[string]*bool
	// TouchTimeout is when the key gives up waiting for a touch, 0 for 30 s.
	TouchTimeout time.Duration
	Fault        Fault
	// Descriptor is the HID report descriptor of [Key.UHID], nil for that of a
	// FIDO device.
	Descriptor []byte
}

// Fault is a defect.
type Fault int

const (
	NoFault Fault = iota
	// Silent: no answer to anything.
	Silent
	// SilentCommands: no answer to makeCredential and getAssertion, and no
	// keepalive.
	SilentCommands
	// NotCBOR: success, followed by bytes that are no CBOR.
	NotCBOR
	// WrongCBOR: success, followed by CBOR of another shape.
	WrongCBOR
	// Oversized: answers announce 65535 bytes.
	Oversized
	// Truncated: answers announce more than comes.
	Truncated
	// ShortSecret: hmac-secret gives 16 bytes.
	ShortSecret
	// NoSecret: the extension is announced and then ignored.
	NoSecret
	// EmptyID and HugeID: credential ids of 0 and 2000 bytes.
	EmptyID
	HugeID
	// UnplugOnTouch: unplugged while it waits for the touch.
	UnplugOnTouch
	// FickleSecret: each derivation gives another secret.
	FickleSecret
	// NoisyKeepalive: waits forever while sending keepalives.
	NoisyKeepalive
	// FickleFlags: every second derivation says of presence and verification of
	// the user what is not so.
	FickleFlags
	// ClaimsWrongPIN: a PIN is said to be wrong although none was sent.
	ClaimsWrongPIN
)

// Limits of the standard: CTAP 2.1 §6.5.2.
const (
	maxPINRetries  = 8
	maxUVRetries   = 3
	pinTriesInARow = 3 // then PIN_AUTH_BLOCKED until the next power-up
)

// Key is one security key. It is safe for concurrent use.
type Key struct {
	behaviour
	master []byte

	mu          sync.Mutex
	config      Config
	pinHash     []byte // first 16 bytes of SHA-256, nil without PIN
	retries     int
	wrongInARow int
	uvRetries   int
	counter     uint32
	touch       Touch
	finger      bool // the next fingerprint matches
	unplugged   chan struct{}
	stats       Stats

	agreement map[uint]*ecdh.PrivateKey // by PIN protocol
	token     pinToken
}

// Touch is what the person does when the key blinks.
type Touch struct {
	Never bool
	After time.Duration
}

// Stats counts what happened to a key.
type Stats struct {
	Touches    int // asked for and given
	TimedOut   int // asked for and not given
	WrongPINs  int
	Creations  int // makeCredential commands
	Assertions int // getAssertion commands
	Secrets    int // outputs of hmac-secret
}

// New makes a key and plugs it in.
func New(c Config) *Key {
	k := &Key{behaviour: behaviours[c.Firmware], config: c, retries: maxPINRetries, uvRetries: maxUVRetries, finger: true}
	if k.config.Seed == "" {
		k.config.Seed = rand.Text()
	}
	if k.config.TouchTimeout == 0 {
		k.config.TouchTimeout = 30 * time.Second
	}
	sum := sha256.Sum256([]byte("luksmith test key " + k.config.Seed))
	k.master = sum[:]
	k.pinHash = c.PINHash
	if c.PIN != "" {
		k.pinHash = pinHash([]byte(c.PIN))
	}
	k.PlugIn()
	return k
}

// Configure changes the make of the key, such as its fault, while it is in use.
func (k *Key) Configure(change func(c *Config)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.config)
}

// SetTouch says what the person will do.
func (k *Key) SetTouch(t Touch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.touch = t
}

// SetFinger says whether the next fingerprints match.
func (k *Key) SetFinger(matches bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.finger = matches
}

// Stats returns the counts.
func (k *Key) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}

// PINRetries is what is left before the PIN is blocked for good.
func (k *Key) PINRetries() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.retries
}

// PlugIn powers the key up: it forgets wrong PINs in a row and PIN tokens.
func (k *Key) PlugIn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wrongInARow = 0
	k.unplugged = make(chan struct{})
	k.agreement = map[uint]*ecdh.PrivateKey{}
	for _, p := range k.protocols {
		k.newAgreement(p)
	}
	k.token = pinToken{}
}

// Unplug removes the key. What it was doing ends without an answer.
func (k *Key) Unplug() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pluggedIn() {
		close(k.unplugged)
	}
}

func (k *Key) pluggedIn() bool {
	select {
	case <-k.unplugged:
		return false
	default:
		return true
	}
}

// PluggedIn reports whether the key is there.
func (k *Key) PluggedIn() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pluggedIn()
}

// gone is closed when the key is unplugged.
func (k *Key) gone() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unplugged
}

// fault returns the present defect.
func (k *Key) fault() Fault {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config.Fault
}

func (k *Key) newAgreement(protocol uint) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	k.agreement[protocol] = key
}

func (k *Key) mac(parts ...[]byte) []byte {
	h := hmac.New(sha256.New, k.master)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// waitForTouch lights the LED: it returns 0 after a touch or the status that ends
// the command. k.mu must not be held.
func (k *Key) waitForTouch(ctx context.Context) status {
	k.mu.Lock()
	touch, timeout, fault := k.touch, k.config.TouchTimeout, k.config.Fault
	k.mu.Unlock()
	switch fault {
	case UnplugOnTouch:
		k.Configure(func(c *Config) { c.Fault = NoFault }) // once
		k.Unplug()
		return statusGone
	case NoisyKeepalive:
		timeout, touch.Never = time.Hour, true
	}
	after := touch.After
	if touch.Never || after > timeout {
		after = timeout
	}
	select {
	case <-ctx.Done():
		return statusKeepaliveCancel
	case <-k.gone():
		return statusGone
	case <-time.After(after):
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if touch.Never || touch.After > timeout {
		k.stats.TimedOut++
		return statusActionTimeout
	}
	k.stats.Touches++
	return 0
}

// readFinger is built-in user verification, which counts as a touch too.
func (k *Key) readFinger(ctx context.Context) status {
	k.mu.Lock()
	left := k.uvRetries
	k.mu.Unlock()
	if left == 0 {
		return statusUVBlocked
	}
	if s := k.waitForTouch(ctx); s != 0 {
		return s
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.finger {
		k.uvRetries = maxUVRetries
		return 0
	}
	k.uvRetries--
	if k.uvRetries == 0 {
		return statusUVBlocked
	}
	return statusUVInvalid
}
