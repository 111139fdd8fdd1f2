package tpm2

import (
	"context"
	"time"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Handler is the token type systemd-tpm2. Its fields are the options of one run, see
// [Handler.Options]; the zero value enrols on the one TPM of the machine, bound to no
// PCR. A file that is nil is looked for where systemd does, and one that is "" is not
// used at all.
type Handler struct {
	// Device is the TPM to enrol on: a path, swtpm:…, or "auto" or "" for the only one.
	Device string
	// UnlockDevice is the TPM to unlock with; "" is Device.
	UnlockDevice string
	// DeviceKey is a file with the public part of another machine's storage key,
	// to seal without its TPM.
	DeviceKey string
	// ParentHandle is the key to seal under, the storage root key when 0.
	ParentHandle tpm2.TPMHandle

	// PCRs are those that a new key is bound to, nil if nothing was said about them.
	PCRs *chip.Selection
	// PCRsAsTheyAre takes present values of PCRs that change while a system starts.
	PCRsAsTheyAre bool
	// Latch binds to a PCR 15 that nothing was measured into.
	Latch   bool
	WithPIN PINMode
	// Argon2id is what stretching the PIN costs. Fields that are 0 are chosen: systemd's,
	// or so that a PIN takes systemd Argon2idTime here if that is given.
	Argon2id     Argon2idCost
	Argon2idTime time.Duration
	// PublicKey is a file with the key that signs values of PCRs, PublicKeyPCRs are
	// those, 11 if nil, PublicKeyBank is theirs, to be chosen when 0, and PublicKeyRef
	// is the policy reference that signatures must have.
	PublicKey     *string
	PublicKeyPCRs *chip.PCRSet
	PublicKeyBank chip.Bank
	PublicKeyRef  *string
	// Signature is a file with signatures, PCRLock one with systemd-pcrlock's policy.
	Signature, PCRLock *string

	// OnlyPCRs leaves tokens that are bound to other PCRs alone; nil takes all.
	OnlyPCRs *chip.PCRSet
	// StorageKeys are the names of the storage keys of TPMs that may be given a PIN;
	// empty: any.
	StorageKeys [][]byte
	// RememberedKeys are further ones for a volume, from outside its header; nil
	// remembers none.
	RememberedKeys func(volume tokens.Volume) [][]byte
	// KeyDataPIN says that the object in UnlockRequest.KeyData needs a PIN.
	KeyDataPIN bool

	// Paths are for tests and other programs that move the machine's files.
	Paths Paths
	// Measure is what crypttab wants measured once the volume key is known. It is
	// for the command: Unlock measures nothing.
	Measure Measurement
	// EntryTitle is what people call the boot entry with a name, "" if nobody knows;
	// nil takes the name.
	EntryTitle func(id string) string
	// AtUnlock are values, of bank SHA-256, that PCRs had in this boot when the volume
	// with a UUID was unlocked; those that nobody knows are left out. nil knows none.
	AtUnlock func(uuid string, pcrs []int) map[int][]byte

	saw func(*tokens.Sight) // see Witness
}

// PINMode says whether a new key takes a PIN.
type PINMode int

const (
	PINNone     PINMode = iota // nobody spoke of one
	PINYes                     // stretched with Argon2id for systemd 262, else direct
	PINDirect                  // PBKDF2, or nothing for systemd 251 and 252
	PINArgon2id                // since systemd 262
	PINNo                      // no PIN, said on purpose: see [Handler.StatesConditions]
)

var (
	_ tokens.Enroller     = (*Handler)(nil)
	_ tokens.Unlocker     = (*Handler)(nil)
	_ tokens.Watcher      = (*Handler)(nil)
	_ tokens.DeviceLister = (*Handler)(nil)
	_ tokens.Finder       = (*Handler)(nil)
	_ tokens.KeyFileUser  = (*Handler)(nil)
)

// Type is the "type" member of the token.
func (h *Handler) Type() string { return tokenType }

// Name is the word for people.
func (h *Handler) Name() string { return typeName }

const typeName = "tpm2"

// KeyFile implements tokens.KeyFileUser: a key file beside the option tpm2-device= is a
// sealed object.
func (h *Handler) KeyFile() *tokens.KeyFileUse {
	return &tokens.KeyFileUse{Server: "cryptsetup-tpm2"}
}

// Subsystems are the kernel subsystems in which a TPM appears.
func (h *Handler) Subsystems() []string { return []string{"tpmrm"} }

// connect opens the TPM that a --tpm2-device= value names.
func (h *Handler) connect(ctx context.Context, device string) (*chip.Conn, error) {
	return chip.Open(ctx, device, h.Paths.Root)
}

// pcrs are those of --tpm2-pcrs=, none if it was not given.
func (h *Handler) pcrs() chip.Selection {
	if h.PCRs == nil {
		return chip.Selection{}
	}
	return *h.PCRs
}

// WantsPIN reports whether a new key is to have a PIN.
func (h *Handler) WantsPIN() bool { return h.WithPIN != PINNone && h.WithPIN != PINNo }

// argon2idGiven reports whether anything was said of how a PIN is stretched.
func (h *Handler) argon2idGiven() bool {
	return h.Argon2id != Argon2idCost{} || h.Argon2idTime != 0
}

// StatesConditions reports whether an option names a condition of a key to be made.
func (h *Handler) StatesConditions() bool {
	return h.PCRs != nil || h.WithPIN != PINNone || h.Latch || h.PublicKey != nil || h.PublicKeyPCRs != nil || h.PublicKeyRef != nil || h.PCRLock != nil
}
