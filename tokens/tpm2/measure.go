package tpm2

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens"
)

// Measurement says where the volume key is to be measured.
type Measurement struct {
	// Wanted is set by tpm2-measure-pcr= with anything but no.
	Wanted bool
	PCR    int
	// Banks are names such as sha256; empty means every bank that the TPM keeps.
	Banks []string
}

func setMeasurePCR(dst *Measurement) func(string) error {
	return func(value string) error {
		pcr, err := parsePCR(value)
		if err == nil {
			dst.Wanted, dst.PCR = true, pcr
			return nil
		}
		yes, boolErr := tokens.ParseBool(value)
		if boolErr != nil {
			return err
		}
		dst.Wanted, dst.PCR = yes, latchPCR
		return nil
	}
}

func setMeasureBanks(dst *Measurement) func(string) error {
	return func(value string) error {
		var list []string
		for name := range strings.SplitSeq(value, ":") {
			if _, err := parseBank(name); err != nil {
				return err
			}
			if slices.Contains(list, name) {
				return fmt.Errorf("bank %s is there twice", name)
			}
			list = append(list, name)
		}
		dst.Banks = list
		return nil
	}
}
