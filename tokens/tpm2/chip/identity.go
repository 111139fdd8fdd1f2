package chip

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// Identity is what a TPM says of itself (TPM 2.0 Part 2 §6.13, fixed properties).
type Identity struct{ manufacturer, model, Firmware string }

// Name is the maker and the model; chips pad both with spaces.
func (i Identity) Name() string {
	return strings.Join(strings.Fields(i.manufacturer+" "+i.model), " ")
}

// Identity asks the TPM who it is.
func (c *Conn) Identity() (Identity, error) {
	m, err := c.properties(propertyManufacturer, propertyFirmware2-propertyManufacturer+1)
	if err != nil {
		return Identity{}, err
	}
	var model string
	for p := uint32(propertyVendor1); p <= propertyVendor4; p++ {
		model += letters(m[p])
	}
	a, b := m[propertyFirmware1], m[propertyFirmware2]
	return Identity{
		manufacturer: letters(m[propertyManufacturer]), model: model,
		Firmware: fmt.Sprintf("%d.%d.%d.%d", a>>16, a&0xffff, b>>16, b&0xffff),
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

// Product is the name that a token records.
func (c *Conn) Product() (string, error) {
	id, err := c.Identity()
	return id.Name(), err
}

// properties reads count properties from first on.
func (c *Conn) properties(first, count uint32) (map[uint32]uint32, error) {
	rsp, err := run(c, "TPM2_GetCapability", tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: first, PropertyCount: count})
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	m := map[uint32]uint32{}
	for _, p := range list.TPMProperty {
		m[uint32(p.Property)] = p.Value
	}
	return m, nil
}
