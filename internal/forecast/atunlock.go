package forecast

import (
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/host"
	"luksmith/tokens/tpm2/bootrecord"
)

// AtUnlock are values that PCRs had in the boot that is running when the volume with a
// UUID was unlocked: those that were recorded then, else those that files and event log
// explain. What is not known is left out. present reads the TPM, if that is needed.
func AtUnlock(root, uuid string, pcrs []int, present func() (map[int][]byte, error)) map[int][]byte {
	values, missing := map[int][]byte{}, false
	record, err := bootrecord.Current(root)
	if err != nil {
		record = &bootrecord.Boot{}
	}
	for _, n := range pcrs {
		if v := seen(record, uuid, n); v != nil {
			values[n] = v
		} else {
			missing = true
		}
	}
	if !missing {
		return values
	}
	now, err := present()
	if err != nil {
		return values
	}
	f, err := Read(Request{Host: host.Options{Root: root}, Present: now})
	if err != nil {
		return values
	}
	defer f.Close()
	for _, n := range pcrs {
		if x, ok := f.Boot.PCRs[n]; ok && x.Reason == "" && values[n] == nil {
			v := bootchain.After(x.Value, x.Words)
			values[n] = v[:]
		}
	}
	return values
}

// seen is the value of a PCR when the volume was opened first, or else, where nobody
// tried, the first of all.
func seen(record *bootrecord.Boot, uuid string, pcr int) []byte {
	for _, u := range record.Unlocks {
		if u.Volume == uuid && u.Bank == chain.Bank && u.PCRs[pcr] != nil {
			return u.PCRs[pcr]
		}
	}
	if pcr == afterFirst {
		return nil
	}
	return record.AtUnlock(chain.Bank, pcr)
}

// afterFirst is the PCR that the first volume that is opened moves for the others.
const afterFirst = 15
