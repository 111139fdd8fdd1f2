package tpm2

import (
	"context"
	"fmt"
	"slices"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// PresentPCRs reads values of bank SHA-256, and sends nothing else to the TPM.
func (h *Handler) PresentPCRs(ctx context.Context, pcrs []int) (map[int][]byte, error) {
	c, err := h.connect(ctx, h.unlockDeviceOr())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	values, err := c.ReadPCRs(chip.BankSHA256, chip.PCRSetOf(pcrs...))
	if err == nil {
		return values, nil
	}
	if has, bankErr := c.Banks(); bankErr == nil && !slices.Contains(has, chip.BankSHA256) {
		return nil, tokens.WithHint(fmt.Errorf("the TPM keeps no bank sha256, whose values alone can be predicted; it has %s", bankNames(has)),
			"switch the bank on in the firmware setup, or re-seal by hand after each update")
	}
	return nil, fmt.Errorf("reading the PCRs: %w", err)
}

// NamedPCRs are those of --tpm2-pcrs=, nil if it was not given, for a command that
// finds the values out itself.
func (h *Handler) NamedPCRs() ([]int, error) {
	switch pcrs := h.pcrs(); {
	case pcrs.Set == 0:
		return nil, nil
	case len(pcrs.Values) > 0:
		return nil, tokens.Usagef("--tpm2-pcrs= takes numbers here, not values")
	case pcrs.Bank != 0 && pcrs.Bank != chip.BankSHA256:
		return nil, tokens.Usagef("--tpm2-pcrs=: values of bank %s cannot be predicted, those of sha256 can", pcrs.Bank)
	default:
		return pcrs.Set.List(), nil
	}
}
