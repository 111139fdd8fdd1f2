package tpm2

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
)

// Devices lists the TPMs of the machine: what they are and how near they are to
// refusing PINs.
func (h *Handler) Devices(ctx context.Context) (*tokens.DeviceTable, error) {
	table := &tokens.DeviceTable{Columns: []string{"PATH", "VENDOR", "FIRMWARE", "BANKS", "LOCKOUT", "HEALS"}}
	list, err := h.devicePaths()
	if err != nil {
		return nil, err
	}
	if h.device != "" && h.device != "auto" {
		list = []string{h.device}
	}
	for _, path := range list {
		row, err := h.deviceRow(ctx, path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			if h.device != "" { // one that was named and is not there
				continue
			}
			row = []string{path, "-", "-", "-", "-", err.Error()}
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}

func (h *Handler) deviceRow(ctx context.Context, path string) ([]string, error) {
	c, err := h.connect(ctx, path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	id, err := c.identity()
	if err != nil {
		return nil, err
	}
	banks, err := c.banks()
	if err != nil {
		return nil, err
	}
	l, err := c.lockout()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, b := range banks {
		names = append(names, b.String())
	}
	return []string{path, id.name(), id.firmware, strings.Join(names, " "), fmt.Sprintf("%d of %d", l.counter, l.limit), l.heals()}, nil
}

// identity is what a TPM says of itself (TPM 2.0 Part 2 §6.13, fixed properties).
type identity struct{ manufacturer, model, firmware string }

// name is the maker and the model; chips pad both with spaces.
func (i identity) name() string {
	return strings.Join(strings.Fields(i.manufacturer+" "+i.model), " ")
}

func (c *conn) identity() (identity, error) {
	m, err := c.properties(propertyManufacturer, propertyFirmware2-propertyManufacturer+1)
	if err != nil {
		return identity{}, err
	}
	var model string
	for p := uint32(propertyVendor1); p <= propertyVendor4; p++ {
		model += letters(m[p])
	}
	a, b := m[propertyFirmware1], m[propertyFirmware2]
	return identity{
		manufacturer: letters(m[propertyManufacturer]), model: model,
		firmware: fmt.Sprintf("%d.%d.%d.%d", a>>16, a&0xffff, b>>16, b&0xffff),
	}, nil
}

// letters are up to four characters in a property. Anything that is not plain
// ASCII is left out: the TPM is not trusted to write to a terminal.
func letters(v uint32) string {
	var b strings.Builder
	for _, c := range binary.BigEndian.AppendUint32(nil, v) {
		if c >= ' ' && c <= '~' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// product is the name that a token records.
func (c *conn) product() (string, error) {
	id, err := c.identity()
	return id.name(), err
}

// banks are the PCR banks that the TPM keeps, the preferred first.
func (c *conn) banks() ([]bank, error) {
	rsp, err := run(c, "TPM2_GetCapability", tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1})
	if err != nil {
		return nil, err
	}
	selection, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	var list []bank
	for _, b := range []bank{bankSHA256, bankSHA384, bankSHA512, bankSHA1} {
		if selected(*selection, b) != 0 {
			list = append(list, b)
		}
	}
	return list, nil
}
