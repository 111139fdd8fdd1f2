package tpm2

import (
	"context"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Handler is the token type systemd-tpm2. Its exported fields are places that
// tests and other programs move; everything else is set through [Handler.Options].
// The zero value enrols on the one TPM of the machine, bound to no PCR.
type Handler struct {
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

	saw           func(*tokens.Sight) // see Witness
	device        string              // to enrol; "" and "auto": the only one
	unlockDevice  string              // to unlock; "": as device
	deviceKey     string              // file with the public part of another machine's SRK
	parentHandle  tpm2.TPMHandle      // 0: the SRK
	pcrs          chip.Selection
	latch         bool
	asTheyAre     bool // --tpm2-pcrs-as-they-are
	pinMode       pinMode
	argon         argonOptions
	publicKey     pathOption
	publicKeyPCRs *chip.PCRSet // nil: 11
	publicKeyBank chip.Bank    // 0: to be chosen
	publicKeyRef  *string
	signature     pathOption
	pcrlock       pathOption
	// stated says that an option named a condition, such as --tpm2-pcrs=.
	stated bool

	// From crypttab only.
	onlyPCRs   *chip.PCRSet // tpm2-pcrs=: use no other tokens
	srkNames   [][]byte     // luksmith-tpm2-srk=: give no PIN to a TPM with another storage key
	keyDataPIN bool         // tpm2-pin=: for KeyData
}

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

// pathOption is an option with a file that is looked for in the usual places when
// it is not given, and not used at all when it is given empty.
type pathOption struct {
	given bool
	path  string
}
