package policy

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// maxBranches is how many values one PCR may have: TPM2_PolicyOR takes two to
// eight (TPM 2.0 Part 3 §23.6).
const maxBranches = 8

// PCRLock is a parsed pcrlock.json: the PCR values that systemd-pcrlock
// predicted, and the NV index whose content approves the policy made of them.
type PCRLock struct {
	Path    string
	Bank    chip.Bank
	Allowed map[int][][]byte // values per PCR, one to eight
	NVIndex *chip.Resource
	srkName []byte
}

// Set are the PCRs that have predicted values.
func (p *PCRLock) Set() chip.PCRSet {
	var s chip.PCRSet
	for i := range p.Allowed {
		s |= 1 << i
	}
	return s
}

// single are the PCRs with one allowed value, which are checked at once.
func (p *PCRLock) single() chip.PCRValues {
	v := chip.PCRValues{}
	for i, list := range p.Allowed {
		if len(list) == 1 {
			v[i] = list[0]
		}
	}
	return v
}

// several are the PCRs with more than one allowed value, ascending.
func (p *PCRLock) several() []int {
	return (p.Set() &^ p.single().Set()).List()
}

// branches continues digest d with each allowed value of a PCR.
func (p *PCRLock) branches(d chip.Digest, pcr int) []chip.Digest {
	var list []chip.Digest
	for _, value := range p.Allowed[pcr] {
		branch := d
		branch.PCR(p.Bank, chip.PCRValues{pcr: value})
		list = append(list, branch)
	}
	return list
}

// ParsePCRLock reads a pcrlock.json.
func ParsePCRLock(text []byte) (*PCRLock, error) {
	all, err := tokens.Members(text)
	if err != nil {
		return nil, errors.New("is not a JSON object")
	}
	m := Members(all)
	var bankName string
	if err := tokens.NeedMember(all, "pcrBank", &bankName); err != nil {
		return nil, err
	}
	p := &PCRLock{Allowed: map[int][][]byte{}}
	if p.Bank, err = chip.ParseBank(bankName); err != nil {
		return nil, Malformed("pcrBank", "%v", err)
	}
	if err := p.readValues(m); err != nil {
		return nil, err
	}
	b, err := m.Base64("nvHandle")
	if err != nil {
		return nil, err
	}
	if p.NVIndex, err = chip.ParseNVIndex(b); err != nil {
		return nil, Malformed("nvHandle", "%v", err)
	}
	var index uint32
	if err := tokens.NeedMember(all, "nvIndex", &index); err != nil {
		return nil, err
	}
	if index != uint32(p.NVIndex.Handle) {
		return nil, Malformed("nvIndex", "is %#x, and nvHandle names %#x", index, uint32(p.NVIndex.Handle))
	}
	if b, err = m.Base64("srkHandle"); err != nil {
		return nil, err
	}
	srk, err := chip.ParseParent(b)
	if err != nil {
		return nil, Malformed("srkHandle", "%v", err)
	}
	p.srkName = srk.Name
	return p, nil
}

func (p *PCRLock) readValues(m Members) error {
	var list []json.RawMessage
	if err := tokens.NeedMember(m, "pcrValues", &list); err != nil {
		return err
	}
	for _, raw := range list {
		e, err := tokens.Members(raw)
		if err != nil {
			return Malformed("pcrValues", "has an element that is not an object")
		}
		var pcr int
		var values []string
		if err := errors.Join(tokens.NeedMember(e, "pcr", &pcr), tokens.NeedMember(e, "values", &values)); err != nil {
			return err
		}
		switch {
		case pcr < 0 || pcr >= chip.PCRCount:
			return Malformed("pcr", "is %d, the range is 0..%d", pcr, chip.PCRCount-1)
		case p.Allowed[pcr] != nil:
			return Malformed("pcrValues", "has PCR %d twice", pcr)
		case len(values) == 0 || len(values) > maxBranches:
			return Malformed("values", "has %d elements, want 1 to %d", len(values), maxBranches)
		}
		for _, text := range values {
			value, err := hex.DecodeString(text)
			if err != nil || len(value) != p.Bank.Size() {
				return Malformed("values", "has a value that is not %d bytes in hexadecimal", p.Bank.Size())
			}
			p.Allowed[pcr] = append(p.Allowed[pcr], value)
		}
	}
	return nil
}

// Belongs checks that the policy file is the one that a token was made with.
func (p *PCRLock) Belongs(t *Conditions) error {
	if t.NVIndex != nil && string(t.NVIndex.Name) != string(p.NVIndex.Name) {
		return fmt.Errorf("pcrlock policy %s is for NV index %#x (%s), the token for %#x (%s)", p.Path,
			uint32(p.NVIndex.Handle), shortName(p.NVIndex.Name), uint32(t.NVIndex.Handle), shortName(t.NVIndex.Name))
	}
	if t.NVIndex == nil && t.Parent != nil && string(t.Parent.Name) != string(p.srkName) {
		return fmt.Errorf("pcrlock policy %s is for another TPM", p.Path)
	}
	return nil
}

// shortName is the beginning of a TPM name, enough to tell two apart.
func shortName(name []byte) string { return base64.StdEncoding.EncodeToString(name)[:12] }
