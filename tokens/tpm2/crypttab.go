package tpm2

import (
	"encoding/hex"
	"path/filepath"
	"strings"

	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// crypttab are the options of the volume's line.
func (h *Handler) crypttab(s *settings, p *chip.Parent) []string {
	device := h.Device
	if !filepath.IsAbs(device) && !strings.HasPrefix(device, "swtpm") || strings.Contains(device, ",") {
		device = "auto"
	}
	list := []string{"tpm2-device=" + device}
	if h.signatureGiven() && s.key != nil {
		list = append(list, "tpm2-signature="+*h.Signature)
	}
	if h.PCRLock != nil && s.pcrlock != nil {
		list = append(list, "tpm2-pcrlock="+*h.PCRLock)
	}
	if s.pcrs.Set.Has(policy.LatchPCR) {
		list = append(list, "tpm2-measure-pcr=yes")
	}
	if s.pin != PINNone && p != nil {
		list = append(list, "luksmith-tpm2-srk="+hex.EncodeToString(p.Name))
	}
	return list
}
