package luks2

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/luks2/internal/jsondoc"
)

// requirementSet is what config.requirements.mandatory means.
type requirementSet struct {
	names      []string // every element, as it stands there
	candidates int      // elements that look like an online re-encryption, of any version
	online     bool     // an online re-encryption that libcryptsetup 2.8 knows
	offline    bool
	// unmet are the names that this package neither knows nor could ignore.
	// inline-hw-tags and opal change how the data is stored, not the header;
	// writing is allowed with them, activating is luks2/dmcrypt's business.
	unmet []string
}

func newRequirementSet(mandatory jsondoc.Value) requirementSet {
	var r requirementSet
	for e := range mandatory.Elems() {
		name, ok := e.Text()
		if !ok {
			continue
		}
		r.names = append(r.names, name)
		if isOnlineReencrypt(name) {
			r.candidates++
		}
		switch name {
		case "online-reencrypt", "online-reencrypt-v2", "online-reencrypt-v3":
			r.online = true
		case "offline-reencrypt":
			r.offline = true
		case "inline-hw-tags", "opal", "opal-v2":
		default:
			r.unmet = append(r.unmet, name)
		}
	}
	return r
}

// isOnlineReencrypt is libcryptsetup's reencrypt_candidate_flag.
func isOnlineReencrypt(name string) bool {
	if name == "online-reencrypt" {
		return true
	}
	version, ok := strings.CutPrefix(name, "online-reencrypt-v")
	return ok && version != "" && strings.Trim(version, "0123456789") == ""
}

// reencrypting reports whether a re-encryption has begun, of a version known or not.
func (r requirementSet) reencrypting() bool { return r.candidates > 0 || r.offline }

// WriteObstacle says why [Device.Update] refuses this header: a mandatory
// requirement that nobody here knows, or a re-encryption in flight
// ([RequirementError]), or something else that was written over a copy
// ([ErrSignature]).
func (h *Header) WriteObstacle() error {
	if h.Foreign != "" {
		return &signatureError{h.Foreign}
	}
	return h.requirement.obstacle(nil)
}

// Reencrypting reports whether a re-encryption has begun and is not finished. The
// data then has two keys, and KeyslotObstacle says which of them a keyslot has.
func (h *Header) Reencrypting() bool { return h.requirement.reencrypting() }

// inFlight is what a keyslot holds during a re-encryption, in the terms of
// cryptsetup: a key that is not the data's yet is unbound.
func (h *Header) inFlight(k *Keyslot) error {
	what := "it belongs to no part of the data"
	if k.Type == "reencrypt" {
		what = "it holds how far the re-encryption is"
	}
	d, _ := h.Digest(k.Digest)
	for _, s := range h.Segments {
		switch {
		case d == nil || !slices.Contains(d.Segments, s.ID):
		case slices.Contains(s.Flags, "backup-previous"):
			what = "it holds the old key"
		case slices.Contains(s.Flags, "backup-final"):
			what = "it holds the new key, unbound until then"
		}
	}
	return fmt.Errorf("%s: %w", what, h.WriteObstacle())
}

// ActivationObstacle says why this volume must not be mapped: what
// WriteObstacle names, and requirements of hardware that dm-crypt alone does not
// meet. It is nil or a [RequirementError].
func (h *Header) ActivationObstacle() error {
	return h.requirement.obstacle([]string{"inline-hw-tags", "opal", "opal-v2"})
}

func (r requirementSet) obstacle(also []string) error {
	if r.reencrypting() {
		return &RequirementError{Names: r.names, Reencryption: true}
	}
	unmet := slices.Clone(r.unmet)
	for _, name := range r.names {
		if slices.Contains(also, name) {
			unmet = append(unmet, name)
		}
	}
	if len(unmet) > 0 {
		return &RequirementError{Names: unmet}
	}
	return nil
}
