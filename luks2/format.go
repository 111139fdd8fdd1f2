package luks2

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/jsondoc"
	"luksmith/luks2/internal/kdf"
	"luksmith/luks2/secret"
)

// FormatOptions are the choices of [Format]. Passphrase and KDF must be set.
type FormatOptions struct {
	// Passphrase opens keyslot 0. It is borrowed.
	Passphrase secret.Secret
	KDF        KDF
	// VolumeKey is borrowed; empty makes a random one of KeySize bytes.
	VolumeKey secret.Secret
	KeySize   int // bytes; 0: 64

	Label, Subsystem string
	UUID             string // 0 characters: a random one

	Encryption string // of the data, as dm-crypt names it; "": aes-xts-plain64
	SectorSize int    // bytes, 512 … 4096; 0: 512

	// Header is the device or file of a detached header; the data then starts
	// at 0.
	Header       string
	HeaderSize   int    // bytes of one copy; 0: 16 KiB
	KeyslotsSize uint64 // bytes; 0: what is left before the data, or 16 MiB less both copies
	DataOffset   uint64 // bytes; 0: 16 MiB, or 0 with Header

	// CreateSize is the size of the header file in bytes when Format is to make
	// it; 0: it must exist.
	CreateSize int64
	// Overwrite allows a device that has a signature, LUKS or other.
	Overwrite bool
}

// defaultDataOffset is cryptsetup's: header and key areas take 16 MiB.
const defaultDataOffset = 16 << 20

// digestIterations are few because the volume key is random: nobody guesses it,
// whatever one guess costs. It is the least that cryptsetup writes.
const digestIterations = 1000

// Format makes a new LUKS2 volume: what was in place of its header and key
// areas is lost, the data area is not touched. The errors are those of Open,
// [ErrSignature] for a device in use by something else, and I/O errors.
func Format(ctx context.Context, path string, o *FormatOptions) (*Device, error) {
	d := &Device{path: path, header: path, workspace: NewWorkspace()}
	if o.Header != "" {
		d.header = o.Header
	}
	if err := d.format(ctx, o.withDefaults()); err != nil {
		return nil, fmt.Errorf("formatting %s: %w", d.header, err)
	}
	return d, nil
}

// withDefaults returns a copy without zero values.
func (o *FormatOptions) withDefaults() *FormatOptions {
	f := *o
	set(&f.KeySize, 64)
	set(&f.SectorSize, sectorSize)
	set(&f.HeaderSize, minHeaderSize)
	set(&f.Encryption, "aes-xts-plain64")
	if f.VolumeKey.Len() > 0 {
		f.KeySize = f.VolumeKey.Len()
	}
	if f.Header == "" {
		set(&f.DataOffset, defaultDataOffset)
	}
	headers := uint64(2 * f.HeaderSize)
	if f.KeyslotsSize == 0 {
		f.KeyslotsSize = min(max(f.DataOffset, headers)-headers, maxKeyslotsSize)
		if f.DataOffset == 0 {
			f.KeyslotsSize = defaultDataOffset - headers
		}
	}
	return &f
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (d *Device) format(ctx context.Context, o *FormatOptions) error {
	key := o.VolumeKey.Clone()
	if key.Len() == 0 {
		key = secret.Random(o.KeySize)
	}
	defer key.Wipe()
	shop := &workshop{ctx: ctx, workspace: d.workspace}
	defer shop.wipe()
	size, err := d.headerDeviceSize(o)
	if err != nil {
		return err
	}
	tx, err := newVolume(ctx, o, key, size, shop)
	if err != nil {
		return err
	}
	if err := d.create(o); err != nil {
		return err
	}
	s, err := d.begin(ctx, true)
	if err != nil {
		return err
	}
	defer s.end()
	if err := clearPlace(s, o); err != nil {
		return err
	}
	return tx.write(&writer{f: s, size: size, base: tx.base})
}

// create makes the header file if that is asked for.
func (d *Device) create(o *FormatOptions) error {
	if o.CreateSize == 0 {
		return nil
	}
	f, err := os.OpenFile(d.header, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(o.CreateSize), f.Close())
}

func (d *Device) headerDeviceSize(o *FormatOptions) (uint64, error) {
	if o.CreateSize != 0 {
		return uint64(o.CreateSize), nil
	}
	f, err := openDevice(d.header, d.header, false)
	if err != nil {
		return 0, err
	}
	defer f.close()
	return f.size, nil
}

// newVolume puts the first header together, as a change of an empty one.
func newVolume(ctx context.Context, o *FormatOptions, key secret.Secret, deviceSize uint64, shop *workshop) (*Tx, error) {
	if !knownSize(uint64(o.HeaderSize)) {
		return nil, fmt.Errorf("%d bytes is not a size of a LUKS2 header", o.HeaderSize)
	}
	digest, err := newDigest(ctx, key)
	if err != nil {
		return nil, err
	}
	doc, err := jsondoc.Parse(emptyJSON(o, digest))
	if err != nil {
		return nil, err
	}
	base := newBase(o, doc, deviceSize)
	tx, err := newTx(ctx, base, shop)
	if err != nil {
		return nil, err
	}
	if err := tx.SetLabel(o.Label, o.Subsystem); err != nil {
		return nil, err
	}
	vk := &VolumeKey{Key: key, of: base.identity(), by: digest.sum(), fingerprint: digest.fingerprint(base.chosen.bin.uuid())}
	if _, err := tx.AddKeyslot(vk, o.Passphrase, o.KDF); err != nil {
		return nil, err
	}
	return tx, firstError(headerFitsDevice(tx.view(tx.final)), tx.check())
}

// newBase is a header that stands nowhere yet: both copies count as damaged, so
// that everything is written and each gets a salt.
func newBase(o *FormatOptions, doc *jsondoc.Doc, deviceSize uint64) *loaded {
	bin := make(binaryHeader, binarySize)
	copy(bin[offMagic:], magicPrimary)
	binary.BigEndian.PutUint16(bin[offVersion:], 2)
	binary.BigEndian.PutUint64(bin[offHdrSize:], uint64(o.HeaderSize))
	bin.setText(offCsumAlg, lenCsumAlg, "sha256")
	uuid := o.UUID
	if uuid == "" {
		uuid = randomUUID()
	}
	bin.setText(offUUID, lenUUID, uuid)
	nowhere := errors.New("not written yet")
	primary := &headerCopy{bin: bin, view: newView(doc, uint64(o.HeaderSize), deviceSize), err: nowhere}
	return &loaded{copies: [2]*headerCopy{primary, {index: 1, err: nowhere}}, chosen: primary}
}

func newDigest(ctx context.Context, key secret.Secret) (*Digest, error) {
	d := &Digest{Type: "pbkdf2", Hash: "sha256", Iterations: digestIterations, Salt: make([]byte, saltSize)}
	rand.Read(d.Salt) // never fails, see crypto/rand
	f, _ := hashes.ByName(d.Hash)
	d.Value = make([]byte, f.Size)
	return d, kdf.PBKDF2(ctx, f, key.Bytes(), d.Salt, d.Iterations, d.Value)
}

// emptyJSON is a document without keyslots, members in cryptsetup's order.
func emptyJSON(o *FormatOptions, d *Digest) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `{"keyslots":{},"tokens":{},`+
		`"segments":{"0":{"type":"crypt","offset":"%d","size":"dynamic","iv_tweak":"0","encryption":%s,"sector_size":%d}},`+
		`"digests":{"0":{"type":"pbkdf2","keyslots":[],"segments":["0"],"hash":"%s","iterations":%d,"salt":"%s","digest":"%s"}},`+
		`"config":{"json_size":"%d","keyslots_size":"%d"}}`,
		o.DataOffset, jsondoc.Quote(o.Encryption), o.SectorSize, d.Hash, d.Iterations, b64(d.Salt), b64(d.Value),
		o.HeaderSize-binarySize, o.KeyslotsSize)
}

// randomUUID is a UUID of version 4, RFC 9562 §5.4.
func randomUUID() string {
	var u [16]byte
	rand.Read(u[:]) // never fails, see crypto/rand
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// clearPlace refuses a device that is in use and destroys what stands where the
// header and key areas will: an older secondary copy could otherwise be found
// when the new primary is damaged.
func clearPlace(s *session, o *FormatOptions) error {
	if !o.Overwrite {
		if err := unused(s); err != nil {
			return err
		}
	}
	end := uint64(2*o.HeaderSize) + o.KeyslotsSize
	if !s.file.block && unix.Fallocate(s.file.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(end)) == nil {
		return nil
	}
	block := make([]byte, minHeaderSize)
	for from := uint64(0); from < end; from += uint64(len(block)) {
		if from >= uint64(2*o.HeaderSize) {
			rand.Read(block) // never fails, see crypto/rand
		}
		if _, err := s.WriteAt(block[:min(uint64(len(block)), end-from)], int64(from)); err != nil {
			return err
		}
	}
	return s.Sync()
}

func unused(s *session) error {
	_, err := validator{}.load(s, s.file.size)
	if !errors.Is(err, ErrNotLUKS2) || errors.Is(err, ErrLUKS1) {
		return fmt.Errorf("%w: a LUKS header", ErrSignature)
	}
	if name := foreignSignature(s); name != "" {
		return &signatureError{name}
	}
	return nil
}
