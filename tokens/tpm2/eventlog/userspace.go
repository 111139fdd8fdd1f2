package eventlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
)

// record is an entry of systemd's log of user space (systemd 262
// src/shared/tpm2-util.c, TPM2_LOG…): JSON text sequences of RFC 7464.
type record struct {
	PCR     *int `json:"pcr"`
	Digests []struct {
		HashAlg string `json:"hashAlg"`
		Digest  string `json:"digest"`
	} `json:"digests"`
	Content struct {
		String    string `json:"string"`
		EventType string `json:"eventType"`
	} `json:"content"`
}

// ParseUserspace reads systemd's log. Records that are not understood are left
// out: the format is systemd's own and may grow.
func ParseUserspace(b []byte) []Event {
	var list []Event
	if len(b) > MaxSize {
		return nil
	}
	for text := range bytes.SplitSeq(b, []byte{0x1e}) {
		var r record
		if json.Unmarshal(bytes.TrimSpace(text), &r) != nil || r.PCR == nil || len(list) == maxEvents {
			continue
		}
		e := Event{PCR: *r.PCR, Digests: map[string][]byte{}, Text: r.Content.EventType + " " + r.Content.String}
		for _, d := range r.Digests {
			digest, err := hex.DecodeString(d.Digest)
			if h := hashOf(d.HashAlg); err == nil && h != 0 && h.Size() == len(digest) {
				e.Digests[d.HashAlg] = digest
			}
		}
		list = append(list, e)
	}
	return list
}
