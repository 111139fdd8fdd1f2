package tpm2

import (
	"context"
	"fmt"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Devices lists the TPMs of the machine: what they are and how near they are to
// refusing PINs.
func (h *Handler) Devices(ctx context.Context) (*tokens.DeviceTable, error) {
	table := &tokens.DeviceTable{Columns: []string{"PATH", "VENDOR", "FIRMWARE", "BANKS", "LOCKOUT", "HEALS"}}
	list, err := chip.Paths(h.Paths.Root)
	if err != nil {
		return nil, err
	}
	if h.Device != "" && h.Device != "auto" {
		list = []string{h.Device}
	}
	for _, path := range list {
		row, err := h.deviceRow(ctx, path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			if h.Device != "" { // one that was named and is not there
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
	id, err := c.Identity()
	if err != nil {
		return nil, err
	}
	banks, err := c.Banks()
	if err != nil {
		return nil, err
	}
	l, err := c.Lockout()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, b := range banks {
		names = append(names, b.String())
	}
	return []string{path, id.Name(), id.Firmware, strings.Join(names, " "), fmt.Sprintf("%d of %d", l.Counter, l.Limit), l.Heals()}, nil
}
