package tpm2

import (
	"context"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
	"luksmith/tokens/tpm2/policy"
)

// BootState is a state of the machine that a key is sealed for before the machine is
// in it.
type BootState struct {
	// PCRs are the values that they will have when the volume is unlocked, of bank
	// SHA-256.
	PCRs map[int][]byte
	// Label is the name of the keyslot.
	Label string
	Entry BootEntry
	// Events are what leads to the values, to explain later what came differently.
	Events []eventlog.Event
}

// BootEntry is what a boot loader starts to get into a state. It stands in the member
// "luksmith" of the token and serves to find it again: it opens nothing, and nothing
// vouches for it.
type BootEntry struct {
	ID        string `json:"entry"` // name of its file without counter and suffix
	MachineID string `json:"machine,omitempty"`
	Likely    bool   `json:"likely,omitempty"` // the prediction is not sure
	// Extended says that the entry is on another partition than the ESP.
	Extended bool `json:"extended,omitempty"`
}

// SealRequest asks for keys that open in states of the machine to come.
type SealRequest struct {
	Volume tokens.Volume
	Compat int // as in tokens.EnrollRequest
	States []BootState
}

// SealForBoots makes a key for each state, without PIN and with no other condition
// than the values, over one connection. What the TPM can be asked now is proven: a key
// for the present state comes back, any other one the TPM has loaded and refused. The
// caller wipes the passphrases; after an error there are none.
func (h *Handler) SealForBoots(ctx context.Context, req *SealRequest, ui tokens.UI) (list []*tokens.Enrollment, err error) {
	c, err := h.connect(ctx, h.Device)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer func() {
		if err != nil {
			for _, e := range list {
				e.Passphrase.Wipe()
			}
			list = nil
		}
	}()
	primaries := map[string]*chip.Parent{} // a TPM has room for few of them
	for i := range req.States {
		e, err := h.sealForBoot(ctx, c, req, &req.States[i], primaries, ui)
		if err != nil {
			return list, fmt.Errorf("sealing for %s: %w", req.States[i].Label, err)
		}
		list = append(list, e)
	}
	return list, nil
}

func (h *Handler) sealForBoot(ctx context.Context, c *chip.Conn, req *SealRequest, state *BootState, primaries map[string]*chip.Parent, ui tokens.UI) (*tokens.Enrollment, error) {
	plain := &Handler{Paths: h.Paths, Device: h.Device, ParentHandle: h.ParentHandle, PCRs: state.selection(),
		PublicKey: new(""), Signature: new(""), PCRLock: new("")}
	s, err := plain.settings(&tokens.EnrollRequest{Volume: req.Volume, Label: state.Label, Compat: req.Compat})
	if err != nil {
		return nil, err
	}
	e := plain.newEnrollment(s, c, ui)
	e.boot, e.o.primaries = &state.Entry, primaries
	if err := e.prepare(); err != nil {
		return nil, err
	}
	if state.Events != nil && !e.isPresentState() { // else the log has their names
		e.events = state.Events
	}
	return e.make(ctx, replacement{})
}

func (s *BootState) selection() *chip.Selection {
	values := chip.PCRValues(s.PCRs)
	return &chip.Selection{Set: values.Set(), Bank: chip.BankSHA256, Values: values}
}

// LatchPCR is the PCR of the latch, see --tpm2-latch.
const LatchPCR = policy.LatchPCR

// BootToken is what the header says of a token, as far as it is about states of the
// machine.
type BootToken struct {
	Token luks2.Token
	PCRs  []int // that are bound literally, ascending
	// Plain says that nothing but the values of these PCRs is demanded, and that
	// they can change with the system: no PIN, no latch, no signature.
	Plain bool
	// Entry is nil unless the token was made by [Handler.SealForBoots].
	Entry *BootEntry

	parsed *token
}

// BootTokens reads the tokens of this type; malformed ones are left out.
func (h *Handler) BootTokens(list []luks2.Token) (found []BootToken) {
	for _, raw := range list {
		if raw.Type != tokenType {
			continue
		}
		t, err := parseToken(raw.Raw)
		if err != nil {
			continue
		}
		b := BootToken{Token: raw, PCRs: t.PCRs.List(), parsed: t}
		b.Plain = !t.PIN && t.SignedPCRs == 0 && !t.PCRLock && !t.Latched() && t.unusable() == ""
		if t.extra.TPM2 != nil {
			b.Entry = t.extra.TPM2.Boot
		}
		found = append(found, b)
	}
	return found
}

// For reports whether a token is for exactly these values: its policy follows from
// them and from nothing else.
func (b *BootToken) For(values map[int][]byte) bool {
	if !b.Plain || b.parsed.Bank != chip.BankSHA256 && len(values) > 0 {
		return false
	}
	return slices.Equal(b.PCRs, chip.PCRValues(values).Set().List()) && b.parsed.Explains(b.parsed.policy, values)
}

// Judged reports whether values of PCRs alone decide, besides a PIN, whether the token
// opens: a signature does not, nor pcrlock.
func (b *BootToken) Judged() bool {
	return b.parsed.SignedPCRs == 0 && !b.parsed.PCRLock && b.parsed.unusable() == "" && (b.parsed.Bank == chip.BankSHA256 || len(b.PCRs) == 0)
}

// Fits reports whether values of at least its PCRs are those that a token is bound to.
// That of the latch is taken to be that of a boot in which nothing was opened. It may
// need a PIN beside them. See [BootToken.Judged].
func (b *BootToken) Fits(values map[int][]byte) bool {
	bound := chip.PCRValues{}
	for _, n := range b.PCRs {
		bound[n] = values[n]
		if n == LatchPCR {
			bound[n] = make([]byte, chip.BankSHA256.Size())
		}
	}
	return b.parsed.Explains(b.parsed.policy, bound)
}

// Opens reports whether the values satisfy the token, which may be bound to fewer
// PCRs. Plain tokens only.
func (b *BootToken) Opens(values map[int][]byte) bool {
	part := map[int][]byte{}
	for _, n := range b.PCRs {
		if part[n] = values[n]; part[n] == nil {
			return false
		}
	}
	return b.For(part)
}
