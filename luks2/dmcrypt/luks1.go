package dmcrypt

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"luksmith/luks2"
	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/kdf"
	"luksmith/luks2/internal/keyarea"
	"luksmith/luks2/secret"
)

// ErrNotLUKS1: the device has no LUKS1 header.
var ErrNotLUKS1 = errors.New("not a LUKS1 volume")

// Of the LUKS1 on-disk format specification 1.2.3, §2.
const (
	luks1Magic      = "LUKS\xba\xbe\x00\x01" // with the version
	luks1Size       = 592
	luks1Slots      = 8
	luks1SlotActive = 0x00ac71f3
	luks1DigestSize = 20
	luks1Volatile   = 208 // where the keyslots begin, which may change
	// luks1MaxIterations is the cap of package luks2 on what an untrusted header
	// may ask for.
	luks1MaxIterations = 1 << 28
)

// LUKS1Volume is a volume of the older format, as its header describes it. It
// does not change and may be used by several goroutines.
//
// This package reads the format itself, with the KDF, splitter and ciphers of
// package luks2: github.com/anatol/luks.go opens LUKS1 in
// aes-xts-plain64 only, keeps the volume key on the Go heap and to itself, and
// computes for as long as the header says. The tests ask it for a second opinion.
type LUKS1Volume struct {
	UUID string

	device     *luks2.Device
	head       [luks1Volatile]byte // of the header
	encryption string              // as dm-crypt names it
	hash       hashes.Func
	keySize    int    // bytes
	offset     uint64 // of the data, bytes
	digest     [luks1DigestSize]byte
	salt       [32]byte
	iterations uint32
	slots      [luks1Slots]luks1Slot
}

type luks1Slot struct {
	active     bool
	iterations uint32
	salt       [32]byte
	offset     int64 // bytes
	stripes    uint32
}

// OpenLUKS1 reads the header of a LUKS1 volume, whose devices package luks2 has
// opened ([luks2.ErrLUKS1] tells that it is one). Errors: [ErrNotLUKS1];
// [ErrUnsupported] for a hash that is not built in or a header beyond the format's
// bounds; [luks2.ErrGone].
func OpenLUKS1(d *luks2.Device) (*LUKS1Volume, error) {
	b, err := readLUKS1(d)
	if err != nil {
		return nil, err
	}
	v, err := parseLUKS1(b)
	if err != nil {
		return nil, fmt.Errorf("reading header of %s: %w", d.HeaderPath(), err)
	}
	v.device, v.head = d, [luks1Volatile]byte(b)
	return v, nil
}

func readLUKS1(d *luks2.Device) ([]byte, error) {
	f, err := d.OpenHeader()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, luks1Size)
	if _, err := f.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading header of %s: %w", d.HeaderPath(), ErrNotLUKS1)
	} else if err != nil {
		return nil, fmt.Errorf("reading header of %s: %w", d.HeaderPath(), err)
	}
	return b, nil
}

// Confirm reads the header again and reports whether it is still the one that was
// opened, but for its keyslots: [luks2.ErrChanged] or [luks2.ErrGone] if not. It
// is for Request.Confirm.
func (v *LUKS1Volume) Confirm(context.Context) error {
	b, err := readLUKS1(v.device)
	if err == nil && !bytes.Equal(b[:luks1Volatile], v.head[:]) {
		err = fmt.Errorf("checking %s: %w", v.device.HeaderPath(), luks2.ErrChanged)
	}
	return errors.Join(v.device.Present(), err)
}

// parseLUKS1 reads struct luks_phdr.
func parseLUKS1(b []byte) (*LUKS1Volume, error) {
	if len(b) < luks1Size || !bytes.HasPrefix(b, []byte(luks1Magic)) {
		return nil, ErrNotLUKS1
	}
	v := &LUKS1Volume{
		UUID:       cString(b[168:208]),
		encryption: cString(b[8:40]) + "-" + cString(b[40:72]),
		offset:     uint64(binary.BigEndian.Uint32(b[104:])) * 512,
		digest:     [luks1DigestSize]byte(b[112:132]),
		salt:       [32]byte(b[132:164]),
		iterations: binary.BigEndian.Uint32(b[164:]),
	}
	hash := cString(b[72:104])
	var ok bool
	if v.hash, ok = hashes.ByName(hash); !ok {
		return nil, fmt.Errorf("hash %q: %w", hash, ErrUnsupported)
	}
	size := binary.BigEndian.Uint32(b[108:])
	if size < 16 || size > 64 {
		return nil, fmt.Errorf("volume key of %d bytes: %w", size, ErrUnsupported)
	}
	v.keySize = int(size)
	if !luks2.ValidUUID(v.UUID) {
		return nil, fmt.Errorf("UUID %q: %w", v.UUID, ErrUnsupported)
	}
	for i := range v.slots {
		s := b[208+48*i:]
		v.slots[i] = luks1Slot{
			active:     binary.BigEndian.Uint32(s) == luks1SlotActive,
			iterations: binary.BigEndian.Uint32(s[4:]),
			salt:       [32]byte(s[8:40]),
			offset:     int64(binary.BigEndian.Uint32(s[40:])) * 512,
			stripes:    binary.BigEndian.Uint32(s[44:]),
		}
	}
	return v, nil
}

// Slots returns the numbers of the keyslots in use.
func (v *LUKS1Volume) Slots() []int {
	var list []int
	for i, s := range v.slots {
		if s.active {
			list = append(list, i)
		}
	}
	return list
}

// Request returns what Attach needs to know of the header. Name, Device and Key
// are the caller's to add.
func (v *LUKS1Volume) Request() *Request {
	return &Request{Type: LUKS1, UUID: v.UUID, Segment: Segment{Offset: v.offset, Encryption: v.encryption, SectorSize: 512}}
}

// OpenKeyslot computes the volume key from a passphrase: from the keyslot with
// that number, or from the first that fits when slot is [luks2.AnySlot]. The
// errors are those of luks2.Device.OpenKeyslot. The caller wipes the result.
func (v *LUKS1Volume) OpenKeyslot(ctx context.Context, slot int, passphrase secret.Secret) (*luks2.VolumeKey, error) {
	slots := v.Slots()
	if slot != luks2.AnySlot {
		if slot < 0 || slot >= luks1Slots || !v.slots[slot].active {
			return nil, &luks2.KeyslotError{Slot: slot, Err: luks2.ErrNoKeyslot}
		}
		slots = []int{slot}
	}
	f, err := v.device.OpenHeader()
	if err != nil {
		return nil, fmt.Errorf("reading keyslots: %w", err)
	}
	defer f.Close()
	none := &luks2.NoKeyError{}
	for _, n := range slots {
		key, err := v.open(ctx, f, &v.slots[n], passphrase)
		switch {
		case err == nil:
			return &luks2.VolumeKey{Key: key, Slot: n}, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, luks2.ErrNoKey):
			none.Tried = append(none.Tried, n)
		default:
			none.Skipped = append(none.Skipped, &luks2.KeyslotError{Slot: n, Err: err})
		}
	}
	return nil, errors.Join(v.device.Present(), fmt.Errorf("opening %s: %w", v.device.HeaderPath(), none))
}

// open computes the key from one keyslot and checks it.
func (v *LUKS1Volume) open(ctx context.Context, header io.ReaderAt, s *luks1Slot, passphrase secret.Secret) (secret.Secret, error) {
	if s.stripes != keyarea.Stripes {
		return secret.Secret{}, fmt.Errorf("%d stripes: %w", s.stripes, ErrUnsupported)
	}
	cipher, err := keyarea.ByName(v.encryption, v.keySize)
	if err != nil {
		return secret.Secret{}, err
	}
	areaKey := secret.New(v.keySize)
	defer areaKey.Wipe()
	if err := v.derive(ctx, passphrase, s.salt[:], s.iterations, areaKey); err != nil {
		return secret.Secret{}, err
	}
	area := secret.New(keyarea.SplitSize(v.keySize))
	defer area.Wipe()
	if _, err := header.ReadAt(area.Bytes(), s.offset); err != nil {
		return secret.Secret{}, fmt.Errorf("reading key material: %w", err)
	}
	if err := cipher.Decrypt(areaKey.Bytes(), area.Bytes()); err != nil {
		return secret.Secret{}, err
	}
	key := secret.New(v.keySize)
	keyarea.Merge(v.hash, area.Bytes()[:v.keySize*keyarea.Stripes], key.Bytes())
	if err := v.verify(ctx, key); err != nil {
		key.Wipe()
		return secret.Secret{}, err
	}
	return key, nil
}

func (v *LUKS1Volume) derive(ctx context.Context, from secret.Secret, salt []byte, iterations uint32, out secret.Secret) error {
	if iterations < 1 {
		return fmt.Errorf("key derivation without iterations: %w", ErrUnsupported)
	}
	if iterations > luks1MaxIterations {
		return &luks2.CostError{What: "iterations", Need: uint64(iterations), Limit: luks1MaxIterations}
	}
	return kdf.PBKDF2(ctx, v.hash, from.Bytes(), salt, int(iterations), out.Bytes())
}

// verify compares the key with the digest of the header.
func (v *LUKS1Volume) verify(ctx context.Context, key secret.Secret) error {
	got := secret.New(luks1DigestSize)
	defer got.Wipe()
	if err := v.derive(ctx, key, v.salt[:], v.iterations, got); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(got.Bytes(), v.digest[:]) != 1 {
		return luks2.ErrNoKey
	}
	return nil
}
