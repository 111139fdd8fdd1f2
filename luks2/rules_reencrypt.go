package luks2

import (
	"slices"

	"luksmith/luks2/internal/jsondoc"
)

// Rules about a re-encryption in flight: libcryptsetup reenc_keyslot_validate,
// validate_reencrypt_segments, LUKS2_keyslots_validate. This package then neither
// writes nor activates; it only judges the header as libcryptsetup does.

func hasFlag(segment jsondoc.Value, flag string) bool { return segment.Get("flags").HasString(flag) }

// backups returns the two segments that an online re-encryption keeps.
func (v *view) backups() (final, previous jsondoc.Value) {
	for _, o := range v.segments.objects {
		switch {
		case o.id < v.firstBackup:
		case hasFlag(o.Value, "backup-final"):
			final = o.Value
		case hasFlag(o.Value, "backup-previous"):
			previous = o.Value
		}
	}
	return final, previous
}

func reencryptionHasBackupSegments(v *view) error {
	final, previous := v.backups()
	if v.requirement.online && (final.Kind() == jsondoc.Missing || previous.Kind() == jsondoc.Missing) {
		return wrong(v.segments.object, "segments", "a re-encryption without its backup segments")
	}
	return nil
}

func reencryptionSegmentsMatch(v *view) error {
	final, previous := v.backups()
	if !v.requirement.online || final.Kind() == jsondoc.Missing || previous.Kind() == jsondoc.Missing {
		return nil
	}
	return each(&v.segments, func(o object) error {
		if o.id >= v.firstBackup || sameCryption(o.Value, final) {
			return nil
		}
		if !hasFlag(o.Value, "in-reencryption") && sameCryption(o.Value, previous) {
			return nil
		}
		return wrong(o.Value, o.field(), "matches none of the backup segments")
	})
}

// sameCryption is libcryptsetup's json_segment_cmp.
func sameCryption(a, b jsondoc.Value) bool {
	kind, ok := a.Get("type").Text()
	if !ok || !b.Get("type").Is(kind) {
		return false
	}
	if kind != "crypt" {
		return true
	}
	sizeA, _ := a.Get("sector_size").Int()
	sizeB, _ := b.Get("sector_size").Int()
	encryption, _ := a.Get("encryption").Text()
	return sizeA == sizeB && b.Get("encryption").Is(encryption)
}

func eachReencrypt(v *view, check func(o object) error) error {
	return eachOfType(v, "reencrypt", check)
}

// oneOf reports a member that is none of the words.
func oneOf(o object, member string, words ...string) error {
	if s, ok := o.Get(member).Text(); ok && slices.Contains(words, s) {
		return nil
	}
	return wrong(o.Get(member), o.field(member), "is none of %q", words)
}

func reencryptModeIsKnown(v *view) error {
	return eachReencrypt(v, func(o object) error { return oneOf(o, "mode", "reencrypt", "encrypt", "decrypt") })
}

func reencryptDirectionIsKnown(v *view) error {
	return eachReencrypt(v, func(o object) error { return oneOf(o, "direction", "forward", "backward") })
}

func reencryptKeySizeIsOne(v *view) error {
	return eachReencrypt(v, func(o object) error {
		if n, ok := o.Get("key_size").Int(); ok && isUint32(o.Get("key_size")) && n != 1 {
			return wrong(o.Get("key_size"), o.field("key_size"), "is %d instead of 1", n)
		}
		return nil
	})
}

func reencryptChecksumIsComplete(v *view) error {
	return eachReencrypt(v, func(o object) error {
		if t := o.At("area", "type"); !t.Is("checksum") && !t.Is("datashift-checksum") {
			return nil
		}
		size := o.At("area", "sector_size")
		if n, _ := size.Int(); !isUint32(size) || n < sectorSize || n&(n-1) != 0 {
			return wrong(size, o.field("area", "sector_size"), "no power of two from 512")
		}
		return mustText(o, "area", "hash")
	})
}

// reencryptShiftIsSectors leaves out datashift-checksum, as libcryptsetup does.
func reencryptShiftIsSectors(v *view) error {
	return eachReencrypt(v, func(o object) error {
		if t := o.At("area", "type"); !t.Is("datashift") && !t.Is("datashift-journal") {
			return nil
		}
		if n, ok := o.At("area", "shift_size").Digits(); !ok || n == 0 || n%sectorSize != 0 {
			return wrong(o.At("area", "shift_size"), o.field("area", "shift_size"), "no number of sectors")
		}
		return nil
	})
}

func (v *view) reencryptKeyslots() int {
	n := 0
	_ = eachReencrypt(v, func(object) error { n++; return nil })
	return n
}

func reencryptKeyslotExists(v *view) error {
	if v.requirement.online && v.reencryptKeyslots() == 0 {
		return wrong(v.keyslots.object, "keyslots", "a re-encryption without its keyslot")
	}
	return nil
}

func reencryptKeyslotIsRequired(v *view) error {
	if v.requirement.candidates == 0 && v.reencryptKeyslots() > 0 {
		return wrong(v.keyslots.object, "keyslots", "a keyslot of a re-encryption that no requirement names")
	}
	return nil
}

func reencryptKeyslotIsSingle(v *view) error {
	if v.reencryptKeyslots() > 1 {
		return wrong(v.keyslots.object, "keyslots", "several keyslots of a re-encryption")
	}
	return nil
}
