package tpm2

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"luksmith/tokens"
)

// maxBranches is how many values one PCR may have: TPM2_PolicyOR takes two to
// eight (TPM 2.0 Part 3 §23.6).
const maxBranches = 8

// pcrlockPolicy is a parsed pcrlock.json: the PCR values that systemd-pcrlock
// predicted, and the NV index whose content approves the policy made of them.
type pcrlockPolicy struct {
	path    string
	bank    bank
	allowed map[int][][]byte // values per PCR, one to eight
	nvIndex *resource
	srkName []byte
}

func (p *pcrlockPolicy) set() pcrSet {
	var s pcrSet
	for i := range p.allowed {
		s |= 1 << i
	}
	return s
}

// single are the PCRs with one allowed value, which are checked at once.
func (p *pcrlockPolicy) single() pcrValues {
	v := pcrValues{}
	for i, list := range p.allowed {
		if len(list) == 1 {
			v[i] = list[0]
		}
	}
	return v
}

// several are the PCRs with more than one allowed value, ascending.
func (p *pcrlockPolicy) several() []int {
	return (p.set() &^ p.single().set()).list()
}

// branches continues digest d with each allowed value of a PCR.
func (p *pcrlockPolicy) branches(d policyDigest, pcr int) []policyDigest {
	var list []policyDigest
	for _, value := range p.allowed[pcr] {
		branch := d
		branch.pcr(p.bank, pcrValues{pcr: value})
		list = append(list, branch)
	}
	return list
}

// digest is the policy that the NV index approves: one PolicyPCR over the PCRs
// with one value, then for every other PCR a PolicyPCR and a PolicyOR.
func (p *pcrlockPolicy) digest() policyDigest {
	var d policyDigest
	if single := p.single(); len(single) > 0 {
		d.pcr(p.bank, single)
	}
	for _, pcr := range p.several() {
		branches := p.branches(d, pcr)
		d.or(branches)
	}
	return d
}

// parsePCRLock reads a pcrlock.json.
func parsePCRLock(text []byte) (*pcrlockPolicy, error) {
	all, err := tokens.Members(text)
	if err != nil {
		return nil, errors.New("is no JSON object")
	}
	m := members(all)
	var bankName string
	if err := tokens.NeedMember(all, "pcrBank", &bankName); err != nil {
		return nil, err
	}
	p := &pcrlockPolicy{allowed: map[int][][]byte{}}
	if p.bank, err = parseBank(bankName); err != nil {
		return nil, malformed("pcrBank", "%v", err)
	}
	if err := p.readValues(m); err != nil {
		return nil, err
	}
	b, err := m.base64("nvHandle")
	if err != nil {
		return nil, err
	}
	if p.nvIndex, err = parseNVIndex(b); err != nil {
		return nil, malformed("nvHandle", "%v", err)
	}
	var index uint32
	if err := tokens.NeedMember(all, "nvIndex", &index); err != nil {
		return nil, err
	}
	if index != uint32(p.nvIndex.handle) {
		return nil, malformed("nvIndex", "is %#x, and nvHandle names %#x", index, uint32(p.nvIndex.handle))
	}
	if b, err = m.base64("srkHandle"); err != nil {
		return nil, err
	}
	srk, err := parseParent(b)
	if err != nil {
		return nil, malformed("srkHandle", "%v", err)
	}
	p.srkName = srk.name()
	return p, nil
}

func (p *pcrlockPolicy) readValues(m members) error {
	var list []json.RawMessage
	if err := tokens.NeedMember(m, "pcrValues", &list); err != nil {
		return err
	}
	for _, raw := range list {
		e, err := tokens.Members(raw)
		if err != nil {
			return malformed("pcrValues", "has an element that is no object")
		}
		var pcr int
		var values []string
		if err := errors.Join(tokens.NeedMember(e, "pcr", &pcr), tokens.NeedMember(e, "values", &values)); err != nil {
			return err
		}
		switch {
		case pcr < 0 || pcr >= maxPCRs:
			return malformed("pcr", "is %d, the range is 0..%d", pcr, maxPCRs-1)
		case p.allowed[pcr] != nil:
			return malformed("pcrValues", "has PCR %d twice", pcr)
		case len(values) == 0 || len(values) > maxBranches:
			return malformed("values", "has %d elements, want 1 to %d", len(values), maxBranches)
		}
		for _, text := range values {
			value, err := hex.DecodeString(text)
			if err != nil || len(value) != p.bank.size() {
				return malformed("values", "has a value that is not %d bytes in hexadecimal", p.bank.size())
			}
			p.allowed[pcr] = append(p.allowed[pcr], value)
		}
	}
	return nil
}

// loadPCRLock reads the pcrlock policy that the option names or the first in the
// usual places, or nil.
func (h *Handler) loadPCRLock() (*pcrlockPolicy, error) {
	candidates := h.Paths.pcrlockFiles()
	if h.pcrlock.given {
		if h.pcrlock.path == "" {
			return nil, nil
		}
		candidates = []string{h.pcrlock.path}
	}
	for _, path := range candidates {
		text, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) && !h.pcrlock.given {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading pcrlock policy: %w", err)
		}
		p, err := parsePCRLock(text)
		if err != nil {
			return nil, tokens.WithHint(fmt.Errorf("reading pcrlock policy %s: %w", path, err), "make the file again: systemd-pcrlock make-policy")
		}
		p.path = path
		return p, nil
	}
	return nil, nil
}

// pcrlockFor finds the policy that a token was made with: in the file that the
// option names or those in the usual places, else among the credentials that came
// with the kernel. Without one that belongs to the token it returns the file's, for
// its belongs to say what is wrong, or nil.
func (h *Handler) pcrlockFor(t *token) (*pcrlockPolicy, error) {
	file, err := h.loadPCRLock()
	if err != nil || file != nil && file.belongs(t) == nil || h.pcrlock.given {
		return file, err
	}
	for _, p := range h.Paths.pcrlockCredentials() {
		if p.belongs(t) == nil {
			return p, nil
		}
	}
	return file, nil
}

// belongs checks that the policy file is the one that a token was made with.
func (p *pcrlockPolicy) belongs(t *token) error {
	if t.nvIndex != nil && string(t.nvIndex.name) != string(p.nvIndex.name) {
		return fmt.Errorf("pcrlock policy %s is for NV index %#x (%s), the token for %#x (%s)", p.path,
			uint32(p.nvIndex.handle), shortName(p.nvIndex.name), uint32(t.nvIndex.handle), shortName(t.nvIndex.name))
	}
	if t.nvIndex == nil && t.parent != nil && string(t.parent.name()) != string(p.srkName) {
		return fmt.Errorf("pcrlock policy %s is for another TPM", p.path)
	}
	return nil
}

// shortName is the beginning of a TPM name, enough to tell two apart.
func shortName(name []byte) string { return base64.StdEncoding.EncodeToString(name)[:12] }
