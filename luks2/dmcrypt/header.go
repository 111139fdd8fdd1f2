package dmcrypt

import (
	"fmt"

	"luksmith/luks2"
)

// FromHeader returns what Attach needs to know of a LUKS2 header. Name, Device and
// Key are the caller's to add, and flags and ReadOnly to extend. It fails before
// anybody is asked for a passphrase if the volume cannot be mapped here: with
// [ErrUnsupported], and a [luks2.RequirementError] if that is the reason.
func FromHeader(h *luks2.Header) (*Request, error) {
	if err := h.ActivationObstacle(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	s, ok := h.DataSegment()
	if !ok || len(h.Segments) != 1 {
		return nil, fmt.Errorf("%w: the volume has %d segments", ErrUnsupported, len(h.Segments))
	}
	if s.Type != "crypt" {
		return nil, fmt.Errorf("%w: a segment of type %q", ErrUnsupported, s.Type)
	}
	if s.Integrity != nil {
		return nil, fmt.Errorf("%w: authenticated encryption (%q)", ErrUnsupported, s.Integrity.Type)
	}
	digest, err := digestOf(h, s.ID)
	if err != nil {
		return nil, err
	}
	return &Request{
		Type: LUKS2, UUID: h.UUID, Digest: digest, Flags: HeaderFlags(h.Config.Flags),
		Segment: Segment{Offset: s.Offset, Size: s.Size, IVTweak: s.IVTweak, Encryption: s.Encryption, SectorSize: s.SectorSize},
	}, nil
}

// digestOf is the number of the digest that recognises the key of a segment.
func digestOf(h *luks2.Header, segment int) (int, error) {
	for _, d := range h.Digests {
		for _, s := range d.Segments {
			if s == segment {
				return d.ID, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: no digest recognises the key of segment %d", ErrUnsupported, segment)
}
