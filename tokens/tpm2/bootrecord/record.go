// Package bootrecord keeps what was seen of each boot of this machine: the values of
// the PCRs when volumes were unlocked, what opened them, what failed and why, and
// what could be explained from the files of the boot. docs/formats.md, "Records of
// boots", is the format.
//
// A record is for root alone and holds no secret: neither a key nor the boot secret
// of systemd-stub. It explains and lets predictions be made after the files of the
// running boot were replaced; nothing opens because of it. [Runtime] is for what was
// seen in the initrd, which it outlives, [State] for what is kept. cryptsetup-unit
// writes the first, by [Folder.Append].
package bootrecord

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Version is the format that this package writes.
const Version = 1

// Boot is the record of one boot.
type Boot struct {
	// Version is that of the format; [Folder.Write] sets it.
	Version int `json:"version"`
	// ID is the kernel's boot_id, which is also the name of the file.
	ID string `json:"boot"`
	// Time is when the record was begun.
	Time time.Time `json:"time"`
	// Kernel is the release of the kernel, "6.12.9-amd64".
	Kernel  string   `json:"kernel,omitempty"`
	Unlocks []Unlock `json:"unlocks,omitempty"` // in the order of their ends
	// Chain is what the files of the boot explained, nil before anybody looked.
	Chain *Chain `json:"chain,omitempty"`
}

// Unlock is one attempt to open one volume, successful or not.
type Unlock struct {
	Time   time.Time `json:"time"`
	Volume string    `json:"volume"`         // UUID of the header
	Name   string    `json:"name,omitempty"` // of the mapping
	// Bank is the bank of PCRs, "sha256".
	Bank string `json:"bank,omitempty"`
	// PCRs are the values as the TPM had them before anything was measured about
	// this volume. A PCR that was not read is not there.
	PCRs PCRs `json:"pcrs,omitempty"`
	// Opened is what gave the volume key, nil if nothing did.
	Opened *Way      `json:"opened,omitempty"`
	Failed []Failure `json:"failed,omitempty"`
}

// PCRs are values of PCRs by number.
type PCRs map[int]Digest

// Way is a way to a volume key.
type Way struct {
	// By is the word of the token type, "tpm2"; "passphrase" and "key file" for
	// keyslots without a token.
	By      string `json:"by"`
	Keyslot *int   `json:"keyslot,omitempty"`
	Token   *int   `json:"token,omitempty"`
	Label   string `json:"label,omitempty"`
	// Policy is the policy digest of a TPM2 token. It tells whether the token with
	// this number is still the same.
	Policy Digest `json:"policy,omitempty"`
}

// Failure is a way that did not open the volume.
type Failure struct {
	Way
	Error string `json:"error"`
	// Exit is the status that this failure alone gives cryptsetup-unit: 7 is a TPM
	// policy that was not satisfied.
	Exit int `json:"exit,omitempty"`
	// Differ are the PCRs whose values were not those of the enrolment, as far as
	// the token tells.
	Differ []int `json:"differ,omitempty"`
}

// Chain is the boot as its files explain it: package bootchain's Boot.
type Chain struct {
	// Explained is when the files were compared.
	Explained time.Time `json:"explained"`
	Entry     Entry     `json:"entry"`
	Parts     []Part    `json:"parts"` // programs, in the order of their start
	// PCRs are what is known of each PCR that a boot chain writes.
	PCRs map[int]Explained `json:"pcrs"`
	// Events are the subjects of events in the log that nothing explains, by PCR.
	Events map[int][]string `json:"events,omitempty"`
	// Config is the text of grub.cfg, if GRUB ran.
	Config []byte `json:"grub_config,omitempty"`
}

// Entry is what a boot loader started.
type Entry struct {
	ID        string `json:"id"` // name of its file without counter and suffix
	Title     string `json:"title,omitempty"`
	MachineID string `json:"machine_id,omitempty"`
	Path      string `json:"path"` // of its file on the boot partition
}

// Part is a program of the boot chain.
type Part struct {
	Role    string   `json:"role"` // "loader", "second", "entry", "addon NAME"
	Path    string   `json:"path"`
	Kind    string   `json:"kind"` // "systemd-boot", "GRUB", …
	Version string   `json:"version,omitempty"`
	Signers []Signer `json:"signers,omitempty"`
	Digest  Digest   `json:"authenticode"`
}

// Signer names a certificate.
type Signer struct {
	Issuer string `json:"issuer"` // name in DER, hexadecimal
	Serial string `json:"serial"`
}

// Explained is what is known of one PCR.
type Explained struct {
	// Value is what the boot chain left in it, as the event log replays.
	Value Digest `json:"value"`
	// Words are what user space extended before a volume was unlocked.
	Words []string `json:"words,omitempty"`
	// Reason is why the files do not explain the value, "" if they do.
	Reason string `json:"reason,omitempty"`
}

// Digest is written in hexadecimal.
type Digest []byte

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d), nil }

// maxDigest is the size of the largest hash that a TPM has.
const maxDigest = 64

var errDigest = errors.New("not the hexadecimal text of a digest")

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) > 2*maxDigest {
		return errDigest
	}
	b, err := hex.AppendDecode(nil, text)
	if err != nil {
		return errDigest
	}
	*d = b
	return nil
}

// Opened are the unlocks of a volume that succeeded.
func (b *Boot) Opened(volume string) []Unlock {
	var list []Unlock
	for _, u := range b.Unlocks {
		if u.Volume == volume && u.Opened != nil {
			list = append(list, u)
		}
	}
	return list
}

// AtUnlock is the value that a PCR had when the first volume of this boot was
// unlocked, nil if nobody read it.
func (b *Boot) AtUnlock(bank string, pcr int) Digest {
	for _, u := range b.Unlocks {
		if value := u.PCRs[pcr]; value != nil && u.Bank == bank {
			return value
		}
	}
	return nil
}

// Merge adds what another record of the same boot knows.
func (b *Boot) Merge(other *Boot) error {
	if other == nil {
		return nil
	}
	if b.ID != other.ID {
		return fmt.Errorf("records of two boots: %s and %s", b.ID, other.ID)
	}
	for _, u := range other.Unlocks {
		b.AddUnlock(u)
	}
	if b.Chain == nil {
		b.Chain = other.Chain
	}
	if b.Kernel == "" {
		b.Kernel = other.Kernel
	}
	return nil
}

// AddUnlock adds an attempt unless it is there. Beyond maxUnlocks the oldest but the
// first go: that one has the values before anything was measured.
func (b *Boot) AddUnlock(u Unlock) {
	for _, was := range b.Unlocks {
		if was.Volume == u.Volume && was.Time.Equal(u.Time) {
			return
		}
	}
	b.Unlocks = bounded(append(b.Unlocks, u))
}
