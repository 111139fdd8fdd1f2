package luks2

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/jsondoc"
	"luksmith/luks2/internal/keyarea"
	"luksmith/luks2/secret"
)

// What a new keyslot's area is encrypted with, whatever the data segment has: all
// readers of LUKS2 know it.
const (
	areaEncryption = "aes-xts-plain64"
	areaKeySize    = 64
)

// defaultAFHash is used with KDFs that name no hash, as by cryptsetup.
const defaultAFHash = "sha256"

// prepared is a keyslot before it has a number and a place: everything that takes
// time. The encryption counts sectors from the start of the area, so the result
// fits any place.
type prepared struct {
	keyslot    Keyslot // without ID, Digest and Area.Offset
	material   []byte  // encrypted, for the disk
	passphrase secret.Secret
	key        secret.Secret // of the volume
	areaKey    secret.Secret
}

// workshop makes the keyslots of one Update and keeps them, so that the function
// can run again on a header that somebody else changed without another KDF.
type workshop struct {
	ctx       context.Context
	workspace *Workspace
	made      []*prepared
	// rehearsal has keyslots made without a key derivation.
	rehearsal bool
}

// keyslot returns the n-th keyslot of the run, computing it if the last run asked
// for another there.
func (w *workshop) keyslot(n int, key, passphrase secret.Secret, kdf KDF) (*prepared, error) {
	if n < len(w.made) {
		if w.made[n].is(key, passphrase, kdf) {
			return w.made[n], nil
		}
		for _, p := range w.made[n:] {
			p.wipe()
		}
		w.made = w.made[:n]
	}
	make := prepare
	if w.rehearsal {
		make = pretend
	}
	p, err := make(w, key, passphrase, kdf)
	if err != nil {
		return nil, err
	}
	w.made = append(w.made, p)
	return p, nil
}

func (w *workshop) wipe() {
	for _, p := range w.made {
		p.wipe()
	}
	w.made = nil
}

func (p *prepared) is(key, passphrase secret.Secret, kdf KDF) bool {
	have := p.keyslot.KDF
	return have.Type == kdf.Type && have.Hash == kdf.Hash && have.Iterations == kdf.Iterations && have.Time == kdf.Time &&
		have.MemoryKiB == kdf.MemoryKiB && have.Parallel == kdf.Parallel &&
		p.passphrase.Equal(passphrase) && p.key.Equal(key)
}

func (p *prepared) wipe() { secret.WipeAll([]secret.Secret{p.passphrase, p.key, p.areaKey}) }

// pretend makes a keyslot of the right length that opens nothing.
func pretend(_ *workshop, key, _ secret.Secret, kdf KDF) (*prepared, error) {
	k, err := newKeyslot(key.Len(), kdf)
	return &prepared{keyslot: k}, err
}

// newKeyslot is what a new keyslot's object says, with a salt of its own.
func newKeyslot(keySize int, kdf KDF) (Keyslot, error) {
	kdf.Salt = make([]byte, saltSize)
	rand.Read(kdf.Salt) // never fails, see crypto/rand
	k := Keyslot{
		Type: "luks2", KeySize: keySize, Priority: PriorityNormal,
		AF:   AF{Type: "luks1", Hash: kdf.Hash, Stripes: keyarea.Stripes},
		Area: Area{Type: "raw", Encryption: areaEncryption, KeySize: areaKeySize, Size: areaSize(keySize)},
		KDF:  kdf,
	}
	if k.AF.Hash == "" {
		k.AF.Hash = defaultAFHash
	}
	if err := k.obstacle(); err != nil {
		return k, fmt.Errorf("new keyslot: %w", err)
	}
	return k, nil
}

// prepare runs the KDF, splits the volume key and encrypts its stripes.
func prepare(w *workshop, key, passphrase secret.Secret, kdf KDF) (*prepared, error) {
	k, err := newKeyslot(key.Len(), kdf)
	if err != nil {
		return nil, err
	}
	areaKey, err := k.KDF.derive(w.ctx, w.workspace, passphrase, areaKeySize)
	if err != nil {
		return nil, fmt.Errorf("new keyslot: %w", err)
	}
	material, err := k.seal(key, areaKey)
	if err != nil {
		areaKey.Wipe()
		return nil, fmt.Errorf("new keyslot: %w", err)
	}
	return &prepared{
		keyslot: k, material: material,
		passphrase: passphrase.Clone(), key: key.Clone(), areaKey: areaKey,
	}, nil
}

// areaSize is what cryptsetup reserves for a key of that many bytes.
func areaSize(keySize int) uint64 { return roundUp(uint64(keySize)*keyarea.Stripes, keyslotsAlignment) }

// seal is the inverse of recover: the content of the key area.
func (k *Keyslot) seal(key, areaKey secret.Secret) ([]byte, error) {
	af, _ := hashes.ByName(k.AF.Hash)
	cipher, err := k.cipher()
	if err != nil {
		return nil, err
	}
	stripes := secret.New(keyarea.SplitSize(k.KeySize))
	defer stripes.Wipe()
	secret.Do(func() { keyarea.Split(af, key.Bytes(), stripes.Bytes()) })
	if err := cipher.Encrypt(areaKey.Bytes(), stripes.Bytes()); err != nil {
		return nil, err
	}
	return append([]byte(nil), stripes.Bytes()...), nil // ciphertext from here on
}

// json is the object as cryptsetup writes it, members in its order.
func (k *Keyslot) json() []byte {
	b := fmt.Appendf(nil, `{"type":%s,"key_size":%d`, jsondoc.Quote(k.Type), k.KeySize)
	b = fmt.Appendf(b, `,"af":{"type":%s,"stripes":%d,"hash":%s}`, jsondoc.Quote(k.AF.Type), k.AF.Stripes, jsondoc.Quote(k.AF.Hash))
	b = fmt.Appendf(b, `,"area":{"type":%s,"offset":"%d","size":"%d","encryption":%s,"key_size":%d}`,
		jsondoc.Quote(k.Area.Type), k.Area.Offset, k.Area.Size, jsondoc.Quote(k.Area.Encryption), k.Area.KeySize)
	b = fmt.Appendf(b, `,"kdf":{"type":%s`, jsondoc.Quote(string(k.KDF.Type)))
	if k.KDF.Type == KDFPBKDF2 {
		b = fmt.Appendf(b, `,"hash":%s,"iterations":%d`, jsondoc.Quote(k.KDF.Hash), k.KDF.Iterations)
	} else {
		b = fmt.Appendf(b, `,"time":%d,"memory":%d,"cpus":%d`, k.KDF.Time, k.KDF.MemoryKiB, k.KDF.Parallel)
	}
	return fmt.Appendf(b, `,"salt":"%s"}}`, base64.StdEncoding.EncodeToString(k.KDF.Salt))
}

// name is how other objects refer to a numbered one.
func name(id int) string { return strconv.Itoa(id) }
