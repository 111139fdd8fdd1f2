package chip

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ReadPCRs reads present values. A TPM answers with up to eight at a time.
func (c *Conn) ReadPCRs(b Bank, set PCRSet) (PCRValues, error) {
	values := PCRValues{}
	for rest := set; rest != 0; {
		rsp, err := run(c, "TPM2_PCR_Read", tpm2.PCRRead{PCRSelectionIn: rest.selection(b)})
		if err != nil {
			return nil, err
		}
		got := selected(rsp.PCRSelectionOut, b) & rest
		if got == 0 || got.len() != len(rsp.PCRValues.Digests) {
			return nil, fmt.Errorf("the TPM has no PCR %s in bank %s", rest, b)
		}
		for i, pcr := range got.List() {
			values[pcr] = rsp.PCRValues.Digests[i].Buffer
			if len(values[pcr]) != b.Size() {
				return nil, fmt.Errorf("TPM2_PCR_Read: a value of %d bytes for PCR %d of bank %s", len(values[pcr]), pcr, b)
			}
		}
		rest &^= got
	}
	return values, nil
}

// selected is the part of a selection that belongs to one bank.
func selected(list tpm2.TPMLPCRSelection, b Bank) PCRSet {
	var set PCRSet
	for _, s := range list.PCRSelections {
		if Bank(s.Hash) != b {
			continue
		}
		for i, bits := range s.PCRSelect {
			if i < PCRCount/8 {
				set |= PCRSet(bits) << (8 * i)
			}
		}
	}
	return set
}

// Banks are the PCR banks that the TPM keeps, the preferred first.
func (c *Conn) Banks() ([]Bank, error) {
	rsp, err := run(c, "TPM2_GetCapability", tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1})
	if err != nil {
		return nil, err
	}
	selection, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	var list []Bank
	for _, b := range []Bank{BankSHA256, BankSHA384, BankSHA512, BankSHA1} {
		if selected(*selection, b) != 0 {
			list = append(list, b)
		}
	}
	return list, nil
}

// Extend is TPM2_PCR_Extend with one digest for each bank.
func (c *Conn) Extend(pcr int, digests map[Bank][]byte) error {
	var values tpm2.TPMLDigestValues
	for _, b := range []Bank{BankSHA1, BankSHA256, BankSHA384, BankSHA512} {
		if d := digests[b]; d != nil {
			values.Digests = append(values.Digests, tpm2.TPMTHA{HashAlg: tpm2.TPMAlgID(b), Digest: d})
		}
	}
	if len(values.Digests) != len(digests) {
		return fmt.Errorf("TPM2_PCR_Extend: a digest for a bank that is not known among %d", len(digests))
	}
	_, err := run(c, "TPM2_PCR_Extend", tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, Digests: values,
	})
	return err
}

// UsedBanks are those of the banks, in their order, whose PCR 0 has been extended.
func (c *Conn) UsedBanks(banks []Bank) ([]Bank, error) {
	var in tpm2.TPMLPCRSelection
	for _, b := range banks {
		in.PCRSelections = append(in.PCRSelections, PCRSetOf(0).selection(b).PCRSelections...)
	}
	rsp, err := run(c, "TPM2_PCR_Read", tpm2.PCRRead{PCRSelectionIn: in})
	if err != nil {
		return nil, err
	}
	var used []Bank
	next := 0 // the digests come in the order of the selection
	for _, b := range banks {
		if selected(rsp.PCRSelectionOut, b) == 0 {
			continue
		}
		if next < len(rsp.PCRValues.Digests) && !Unused(rsp.PCRValues.Digests[next].Buffer) {
			used = append(used, b)
		}
		next++
	}
	return used, nil
}
