package luks2

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"luksmith/luks2/argon2id"
	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/kdf"
	"luksmith/luks2/internal/keyarea"
	"luksmith/luks2/secret"
)

// saltSize is the length of every salt in keyslots and digests, cryptsetup's
// LUKS_SALTSIZE. libcryptsetup 2.6 takes a digest with another one for a match.
const saltSize = 32

// oldDigestSize is that of digests which came from a LUKS1 header; others are as
// long as their hash.
const oldDigestSize = 20

// VolumeKey is the key of a segment with what it was found by.
type VolumeKey struct {
	Key    secret.Secret
	Slot   int // keyslot that opened
	Digest int // digest that recognised it

	of          identity // the volume as it was then
	by          [sha256.Size]byte
	fingerprint KeyFingerprint
}

// Wipe overwrites the key.
func (k *VolumeKey) Wipe() { k.Key.Wipe() }

// OpenKeyslot computes the volume key from a passphrase: from the keyslot with
// that number, or from the first of [Header.PassphraseOrder] that fits when slot
// is [AnySlot]. The caller wipes the result; passphrase is borrowed.
//
// If no slot fits the error is a [NoKeyError], which matches [ErrNoKey] and has
// the slots that could not be tried: [CostError], [ErrNoMemory], a cipher or hash
// that is not built in. A context that ends makes it return soon.
func (d *Device) OpenKeyslot(ctx context.Context, slot int, passphrase secret.Secret) (*VolumeKey, error) {
	s, l, err := d.beginReading(ctx)
	if err != nil {
		return nil, err
	}
	defer s.end()
	s.unlock() // never held during a KDF; a slot that changes meanwhile fails its digest
	h := l.own()
	slots := []int{slot}
	if slot == AnySlot {
		slots = h.PassphraseOrder()
	} else if _, ok := h.Keyslot(slot); !ok {
		return nil, &KeyslotError{slot, ErrNoKeyslot}
	}
	defer d.workspace.Hold()() // for one keyslot after the other
	key, err := h.tryKeyslots(ctx, room{s, d.workspace}, slots, passphrase)
	if err != nil {
		return nil, d.gone(fmt.Errorf("opening %s: %w", d.header, err))
	}
	key.of = l.identity()
	return key, nil
}

// room is what trying a keyslot needs: where its key area is, and memory.
type room struct {
	storage
	workspace *Workspace
}

func (h *Header) tryKeyslots(ctx context.Context, f room, slots []int, passphrase secret.Secret) (*VolumeKey, error) {
	none := &NoKeyError{}
	spent := 0.0
	for _, slot := range slots {
		if spent += h.share(slot); spent > maxShares && len(slots) > 1 {
			none.Skipped = append(none.Skipped, &KeyslotError{slot, errTooMuch})
			continue
		}
		key, err := h.tryKeyslot(ctx, f, slot, passphrase)
		switch {
		case err == nil:
			return key, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, ErrNoKey):
			none.Tried = append(none.Tried, slot)
		default:
			none.Skipped = append(none.Skipped, &KeyslotError{slot, err})
		}
	}
	return nil, none
}

// tryKeyslot returns ErrNoKey if the slot was computed and gives another key.
func (h *Header) tryKeyslot(ctx context.Context, f room, slot int, passphrase secret.Secret) (*VolumeKey, error) {
	if err := h.KeyslotObstacle(slot); err != nil {
		return nil, err
	}
	k, _ := h.Keyslot(slot)
	d, _ := h.Digest(k.Digest)
	if d, ok := f.storage.(interface{ prefetch(at int64, n int) }); ok {
		d.prefetch(k.areaOffset(), keyarea.SplitSize(k.KeySize)) // while the KDF runs
	}
	areaKey, err := k.KDF.derive(ctx, f.workspace, passphrase, k.Area.KeySize)
	if err != nil {
		return nil, err
	}
	defer areaKey.Wipe()
	key, err := k.recover(f.storage, areaKey)
	if err != nil {
		return nil, err
	}
	if err := d.verify(ctx, key); err != nil {
		key.Wipe()
		return nil, err
	}
	return &VolumeKey{Key: key, Slot: slot, Digest: d.ID, by: d.sum(), fingerprint: d.fingerprint(h.UUID)}, nil
}

// KeyslotObstacle says why a keyslot cannot be opened here with any passphrase:
// it is of another type, the volume is being re-encrypted, it belongs to another key than the data segment's, or has a
// hash, cipher or cost that this package does not compute ([UnsupportedError],
// [CostError]). nil says that a right passphrase will do, if the machine has the
// memory. The kernel may load the module of the cipher.
func (h *Header) KeyslotObstacle(slot int) error {
	k, ok := h.Keyslot(slot)
	if !ok {
		return ErrNoKeyslot
	}
	if slot >= MaxKeyslots {
		return fmt.Errorf("keyslot numbers end at %d", MaxKeyslots-1)
	}
	if h.Reencrypting() {
		return h.inFlight(k)
	}
	if k.Type != "luks2" {
		return fmt.Errorf("keyslot of type %q holds no key", k.Type)
	}
	d, ok := h.Digest(k.Digest)
	if !ok {
		return errors.New("no digest names this keyslot, so its key cannot be recognised")
	}
	if !h.OpensData(slot) {
		return errors.New("the keyslot holds another key than that of the data")
	}
	return firstError(d.obstacle(), k.obstacle()) // no other keyslot helps against the first
}

func (k *Keyslot) obstacle() error {
	if k.KeySize < 1 || k.KeySize > maxKeySize {
		return fmt.Errorf("volume key of %d bytes is out of range", k.KeySize)
	}
	if _, ok := hashes.ByName(k.AF.Hash); !ok {
		return &UnsupportedError{What: "anti-forensic hash", Name: k.AF.Hash}
	}
	if _, err := k.cipher(); err != nil {
		return err
	}
	if need := keyarea.SplitSize(k.KeySize); uint64(need) > k.Area.Size {
		return fmt.Errorf("key area of %d bytes is too small for %d", k.Area.Size, need)
	}
	return k.KDF.obstacle()
}

// cipher is that of the key area.
func (k *Keyslot) cipher() (keyarea.Cipher, error) {
	c, err := keyarea.ByName(k.Area.Encryption, k.Area.KeySize)
	if e, ok := errors.AsType[*keyarea.CipherError](err); ok {
		return c, &UnsupportedError{What: "key area", Name: e.Name, Modules: e.Modules, Err: e}
	}
	return c, err
}

func (k *KDF) obstacle() error {
	switch k.Type {
	case KDFPBKDF2:
		if _, ok := hashes.ByName(k.Hash); !ok {
			return &UnsupportedError{What: "KDF hash", Name: k.Hash}
		}
	case KDFArgon2i, KDFArgon2id:
	default:
		return &UnsupportedError{What: "KDF", Name: string(k.Type)}
	}
	if len(k.Salt) != saltSize {
		return fmt.Errorf("KDF salt of %d bytes instead of %d", len(k.Salt), saltSize)
	}
	return k.costs()
}

func (d *Digest) obstacle() error {
	f, ok := hashes.ByName(d.Hash)
	switch {
	case d.Type != "pbkdf2":
		return &UnsupportedError{What: "digest type", Name: d.Type}
	case !ok:
		return &UnsupportedError{What: "digest hash", Name: d.Hash}
	case len(d.Salt) != saltSize:
		return fmt.Errorf("digest salt of %d bytes instead of %d", len(d.Salt), saltSize)
	case len(d.Value) != f.Size && len(d.Value) != oldDigestSize:
		return fmt.Errorf("digest of %d bytes, which is not a length of %s", len(d.Value), d.Hash)
	}
	return iterationsCost(d.Iterations)
}

// derive runs the KDF. Memory-hard ones wait for their turn and for memory.
func (k *KDF) derive(ctx context.Context, w *Workspace, passphrase secret.Secret, size int) (secret.Secret, error) {
	out := secret.New(size)
	err := k.fill(ctx, w, passphrase, out)
	if err != nil {
		out.Wipe()
		return secret.Secret{}, err
	}
	return out, nil
}

func (k *KDF) fill(ctx context.Context, w *Workspace, passphrase, out secret.Secret) error {
	if k.Type == KDFPBKDF2 {
		f, _ := hashes.ByName(k.Hash)
		return kdf.PBKDF2(ctx, f, passphrase.Bytes(), k.Salt, k.Iterations, out.Bytes())
	}
	return w.use(ctx, k, func(m *argon2id.Memory) error {
		p := k.argon2()
		p.Memory = m
		return p.Key(ctx, passphrase, out)
	})
}

func (k *KDF) argon2() argon2id.Params {
	return argon2id.Params{Independent: k.Type == KDFArgon2i, Salt: k.Salt, Time: k.Time, MemoryKiB: k.MemoryKiB, Lanes: k.Parallel}
}

// areaOffset is where the key area begins. One that is not a multiple of a sector is
// rounded down, as by libcryptsetup.
func (k *Keyslot) areaOffset() int64 { return int64(k.Area.Offset / sectorSize * sectorSize) }

// recover reads and decrypts the key area and merges its stripes.
func (k *Keyslot) recover(f storage, areaKey secret.Secret) (secret.Secret, error) {
	cipher, err := k.cipher()
	if err != nil {
		return secret.Secret{}, err
	}
	af, _ := hashes.ByName(k.AF.Hash)
	key := secret.New(k.KeySize)
	err = cipher.Recover(af, areaKey, key, func(part []byte, at int) error {
		if _, err := f.ReadAt(part, k.areaOffset()+int64(at)); err != nil {
			return fmt.Errorf("reading the key area: %w", err)
		}
		return nil
	})
	if err != nil {
		key.Wipe()
		return secret.Secret{}, err
	}
	return key, nil
}

// verify reports a key that is not the one the digest was made from: ErrNoKey.
// It takes time that does not depend on where they differ. A malformed digest
// recognises nothing; libcryptsetup 2.6 accepts any key for some of them.
func (d *Digest) verify(ctx context.Context, key secret.Secret) error {
	if err := d.obstacle(); err != nil {
		return err
	}
	f, _ := hashes.ByName(d.Hash)
	sum := make([]byte, len(d.Value))
	if err := kdf.PBKDF2(ctx, f, key.Bytes(), d.Salt, d.Iterations, sum); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(sum, d.Value) != 1 {
		return ErrNoKey
	}
	return nil
}
