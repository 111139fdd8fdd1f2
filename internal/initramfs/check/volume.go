package check

import (
	"context"

	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/tokens/all"
)

// ReadVolume reads from a volume's header what it calls for.
func ReadVolume(ctx context.Context, device string) (*Volume, error) {
	d, err := luks2.Open(device, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	h, err := d.Header(ctx)
	if err != nil {
		return nil, err
	}
	mapping, err := dmcrypt.FromHeader(h)
	if err != nil {
		return nil, err
	}
	v := &Volume{Names: []string{"UUID=" + h.UUID, "/dev/disk/by-uuid/" + h.UUID, device}}
	v.Needs.AddCipher(mapping.Segment.Encryption)
	for _, handler := range all.New() {
		for _, t := range h.Heeded() {
			if t.Type == handler.Type() {
				v.Needs.AddType(handler)
			}
		}
	}
	return v, nil
}
